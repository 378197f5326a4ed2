"""What every store promises, tried on each of them."""

from __future__ import annotations

import errno
import io
import os
import pickle
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import NotFound, UserError
from cluster.storage import s3, s3_writes
from cluster.storage.object_store import ObjectStore, check_key
from cluster.storage.open import open_store
from cluster.storage.probe import Probe
from tests.support.faulty_store import FaultRates, FaultyStore

JUICEFS = pytest.param("juicefs", marks=pytest.mark.slow)
STORES = ["local", "seaweedfs", "faultless", JUICEFS]


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    match request.param:
        case "seaweedfs":
            return request.getfixturevalue("s3_store")
        case "juicefs":
            server = request.getfixturevalue("juicefs")
            return open_store(f"{server.uri}/{uuid.uuid4().hex}", single_writer=True)
        case "faultless":
            return FaultyStore(open_store(str(tmp_path / "store")), 0, FaultRates())
        case _:
            return open_store(str(tmp_path / "store"))


def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key for info in store.list(prefix)]


def test_put_then_get_replaces_whole_objects(store: ObjectStore) -> None:
    store.put("a/b.bin", b"first, and longer")
    store.put("a/b.bin", b"second")
    assert store.get("a/b.bin") == b"second"


def test_an_empty_object_exists(store: ObjectStore) -> None:
    store.put("a/_SUCCESS", b"")
    assert store.get("a/_SUCCESS") == b""
    assert [(i.key, i.size_bytes) for i in store.list("a/")] == [("a/_SUCCESS", 0)]
    with store.open_reader("a/_SUCCESS") as reader:
        assert reader.read() == b""
    assert not store.put_if_absent("a/_SUCCESS", b"more")


def test_a_large_object_comes_back_and_can_be_read_in_pieces(store: ObjectStore) -> None:
    data = os.urandom(20_000_000)
    store.put("big", data)
    assert store.get("big") == data
    with store.open_reader("big") as reader:
        assert reader.seekable()
        reader.seek(-8, os.SEEK_END)
        assert reader.read() == data[-8:]
        assert reader.seek(3_000_001) == 3_000_001
        assert reader.read(2_500_000) == data[3_000_001:5_500_001]
        assert reader.tell() == 5_500_001
        reader.seek(-1, os.SEEK_CUR)
        assert reader.read(2) == data[5_500_000:5_500_002]
        reader.seek(len(data) + 5)
        assert reader.read(1) == b""


@pytest.mark.parametrize("store", ["seaweedfs", JUICEFS], indirect=True)
def test_objects_beyond_the_limit_are_sent_in_parts(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = 5 * 2**20  # the smallest that S3 allows
    monkeypatch.setattr(s3, "MULTIPART_BYTES", part)
    monkeypatch.setattr(s3_writes, "PART_BYTES", part)
    data = os.urandom(2 * part + 1)
    store.put("parts", data)
    assert store.get("parts") == data
    assert [i.size_bytes for i in store.list("parts")] == [len(data)]


def test_parquet_is_read_column_by_column_through_the_reader(store: ObjectStore) -> None:
    table = pa.table({"index": range(200_000), "text": [str(i) for i in range(200_000)]})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=20_000)
    store.put("x.parquet", buffer.getvalue())
    with store.open_reader("x.parquet") as reader:
        file = pq.ParquetFile(reader)
        assert file.metadata.num_row_groups == 10
        assert file.read_row_group(7, columns=["index"])["index"][0].as_py() == 140_000
        assert file.read(columns=["text"]).equals(table.select(["text"]))


def test_put_if_absent_writes_once(store: ObjectStore) -> None:
    assert store.put_if_absent("c/x.json", b"mine")
    assert not store.put_if_absent("c/x.json", b"theirs")
    assert store.get("c/x.json") == b"mine"
    store.delete("c/x.json")
    assert store.put_if_absent("c/x.json", b"again")


@pytest.mark.parametrize("store", ["local", "seaweedfs", "faultless"], indirect=True)
def test_of_sixteen_racing_writers_exactly_one_writes(store: ObjectStore) -> None:
    start = Barrier(16)

    def write(key: str, writer: int) -> bool:
        start.wait()
        return store.put_if_absent(key, f"writer {writer}".encode())

    with ThreadPoolExecutor(16) as pool:
        for turn in range(2):
            key = f"race/{turn}"
            results = list(pool.map(write, [key] * 16, range(16)))
            assert results.count(True) == 1
            assert store.get(key) == f"writer {results.index(True)}".encode()


def test_list_is_in_key_order_with_sizes(store: ObjectStore) -> None:
    names = ["s/a/1", "s/a-b/1", "s/a.c", "s/a0", "s/a!", "s/é", "s/Z", "t/x"]
    for size, name in enumerate(names):
        store.put(name, b"x" * size)
    listed = list(store.list("s/"))
    assert [i.key for i in listed] == sorted(names[:-1])
    assert {i.key: i.size_bytes for i in listed} == {n: s for s, n in enumerate(names[:-1])}
    assert keys(store, "s/a") == sorted(n for n in names if n.startswith("s/a"))
    assert keys(store, "s/none") == keys(store, "nowhere/at/all") == []
    assert set(names) <= set(keys(store))


def test_list_goes_on_after_a_key(store: ObjectStore) -> None:
    names = [f"commits/shard-{number:03d}.json" for number in range(12)]
    for name in [*names, "commits2/x", "comm/shard-001.json"]:
        store.put(name, b"1")

    def after(key: str, prefix: str = "commits/") -> list[str]:
        return [info.key for info in store.list(prefix, after=key)]

    assert after(names[3]) == names[4:]
    assert after(names[9], "commits/shard-0") == names[10:]
    assert after("commits/shard-0035") == names[4:]
    assert after(names[-1]) == after("commits/zzz") == []
    assert after("") == after("a") == names


def test_list_dirs_names_one_level(store: ObjectStore) -> None:
    for name in ("d/b/1", "d/b/x/2", "d/a-1/3", "d/a/4", "d/é/5", "d/file", "e/6"):
        store.put(name, b"")
    assert store.list_dirs("d/") == ["a", "a-1", "b", "é"]
    assert store.list_dirs("d/b/") == ["x"]
    assert store.list_dirs("nowhere/") == store.list_dirs("d/a/") == []
    assert {"d", "e"} <= set(store.list_dirs(""))
    assert not {name for name in store.list_dirs("") if name.startswith(".tmp")}


@pytest.mark.slow
def test_list_goes_beyond_one_page(store: ObjectStore) -> None:
    names = [f"p/{i:05d}" for i in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: store.put(name, b""), names))
    assert keys(store, "p/") == names


@pytest.mark.parametrize(
    "key",
    ["ü/ñ 1", "日本/図.json", "a+b", "a%20b", "x=1/y=2.parquet", "q'uote&amp;\"", "#h?g", "~t!(*)"],
)
def test_keys_keep_their_characters(store: ObjectStore, key: str) -> None:
    store.put(key, key.encode())
    assert store.get(key) == key.encode()
    assert keys(store, key) == [key]
    store.delete(key)
    assert keys(store, key) == []


@pytest.mark.parametrize(
    "key",
    ["", "/abs", "a//b", "../up", "a/../../b", "a/./b", "a/", "a\\b", "a\nb", "\ud800",
     "x" * 300, "/".join(["y" * 200] * 6)],
)  # fmt: skip
def test_keys_that_some_store_would_change_are_refused(store: ObjectStore, key: str) -> None:
    for call in (store.get, store.delete, store.open_reader):
        with pytest.raises(UserError, match="key"):
            call(key)
    for write in (store.put, store.put_if_absent):
        with pytest.raises(UserError, match="key"):
            write(key, b"")


def test_a_missing_object_is_not_found(store: ObjectStore) -> None:
    store.put("there/x", b"")
    for key in ("missing", "there/y", "there"):
        with pytest.raises(NotFound, match=key):
            store.get(key)
        with pytest.raises(NotFound, match=key):
            store.open_reader(key)


def test_delete_removes_and_may_be_repeated(store: ObjectStore) -> None:
    store.put("d/x", b"1")
    for _ in range(2):
        store.delete("d/x")
        assert keys(store, "d/") == []
    store.delete("never/was")


def test_what_is_written_where_others_delete_the_last_object_is_there(store: ObjectStore) -> None:
    def come_and_go(name: str) -> None:
        for turn in range(10):
            store.put(f"d/e/{name}", b"1")
            assert store.put_if_absent(f"d/f/{name}", str(turn).encode())
            assert store.get(f"d/e/{name}") == b"1"
            assert store.get(f"d/f/{name}") == str(turn).encode()
            for directory in ("d/e", "d/f"):
                store.delete(f"{directory}/{name}")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(come_and_go, "abcdefgh"))
    assert keys(store, "d/") == []


def test_a_directory_that_comes_and_goes_is_no_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another writer makes the directory, and removes it when its last object goes."""
    store, mkdir, met = open_store(str(tmp_path)), Path.mkdir, []

    def met_by_another(path: Path, *args: Any, **kwargs: Any) -> None:
        if path.name == "commits" and not met:
            met.append(path)
            raise FileExistsError(errno.EEXIST, "exists", str(path))
        mkdir(path, *args, **kwargs)

    monkeypatch.setattr(Path, "mkdir", met_by_another)
    assert store.put_if_absent("commits/shard", b"mine")
    assert met
    assert store.get("commits/shard") == b"mine"
    assert not store.put_if_absent("commits/shard", b"yours")


def test_another_process_opens_the_same_store_from_its_config(store: ObjectStore) -> None:
    store.put("shared", b"1")
    again = open_store(pickle.loads(pickle.dumps(store.config)), probe=False)
    assert again.config == store.config
    assert again.get("shared") == b"1"


@pytest.mark.parametrize("store", ["local", "seaweedfs", "faultless"], indirect=True)
def test_the_probe_accepts_the_store_and_leaves_nothing(store: ObjectStore) -> None:
    Probe(store).run()
    assert keys(store) == []


def test_check_key_returns_good_keys() -> None:
    for key in ("a", "jobs/x/_SUCCESS", ".hidden/x", "a..b", "é" * 100):
        assert check_key(key) == key
