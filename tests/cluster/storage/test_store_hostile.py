"""Stores that cannot be used, or fail midway: messages to the user, and what is left behind."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.errors import CommitStateUnknown, Retryable, UserError
from cluster.storage.backoff import Backoff
from cluster.storage.commit import create_once
from cluster.storage.dev_s3 import DevS3
from cluster.storage.object_store import StoreConfig
from cluster.storage.open import open_store
from cluster.storage.s3 import S3Store
from tests.support.juicefs import JuiceFSGateway
from tests.support.lossy_proxy import LossyProxy
from tests.support.mounts import run_on_tmpfs

SECRET = "s3cr3t-do-not-print"
IMPATIENT = Backoff(attempts=3, sleep=lambda _: None)


def refusal(uri: str | StoreConfig, **options: str) -> str:
    """What open_store says when it refuses; never a credential."""
    with pytest.raises(UserError) as refused:
        open_store(uri, **options)  # type: ignore[arg-type]
    text = str(refused.value)
    assert SECRET not in text
    assert os.environ.get("AWS_SECRET_ACCESS_KEY", SECRET) not in text
    assert os.environ.get("AWS_ACCESS_KEY_ID", SECRET) not in text
    return text


# S3: wrong address, wrong credentials


def test_wrong_secret_key(s3: DevS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    text = refusal(f"{s3.uri}/x")
    assert "AWS_SECRET_ACCESS_KEY" in text
    assert "s3://un0/x/" in text
    assert s3.endpoint_url in text


def test_unknown_access_key(s3: DevS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", SECRET)
    assert "AWS_ACCESS_KEY_ID" in refusal(s3.uri)


def test_no_credentials(s3: DevS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "no credentials" in refusal(s3.uri)


def test_unknown_profile(s3: DevS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert "AWS_PROFILE" in refusal(s3.uri)


@pytest.mark.usefixtures("s3")
def test_missing_bucket() -> None:
    text = refusal("s3://no-such-bucket/x")
    assert "no-such-bucket" in text
    assert "create it" in text


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize("dead", ["http://127.0.0.1:9", "http://nowhere.invalid:9000"])
def test_dead_endpoint(dead: str) -> None:
    text = refusal("s3://un0/x", endpoint_url=dead)
    assert dead in text
    assert "--endpoint-url" in text


@pytest.mark.usefixtures("s3")
@pytest.mark.parametrize(
    "endpoint",
    [f"http://key:{SECRET}@127.0.0.1:9", "127.0.0.1:9000", "ftp://127.0.0.1", "http://"],
)
def test_bad_endpoint_url(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "endpoint" in refusal("s3://un0/x", endpoint_url=endpoint)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
    assert "endpoint" in refusal("s3://un0/x")


@pytest.mark.parametrize(
    "uri",
    [
        f"s3://key:{SECRET}@bucket/prefix",
        f"s3://{SECRET}@bucket",
        f"s3://key:{SECRET}/more@bucket/prefix",
        f"s3:key:{SECRET}@bucket",
        f"https://key:{SECRET}@bucket/prefix",
        f"s3://bucket/prefix?X-Amz-Signature={SECRET}",
    ],
)
def test_credentials_in_the_address_are_refused_unprinted(uri: str) -> None:
    assert refusal(uri)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("gs://bucket/x", "s3://bucket/prefix"),
        ("s3:/bucket/x", "s3://bucket/prefix"),
        ("s3://", "bucket name"),
        ("s3:///prefix", "bucket name"),
        ("s3://b", "bucket name"),
        ("s3://my bucket/x", "bucket name"),
        ("s3://bucket/a/../b", "'..'"),
        ("s3://bucket/a//b", "must not be empty"),
        ("s3://bucket/a#b", "'#'"),
        ("file://relative/dir", "three slashes"),
        ("file:relative", "three slashes"),
        ("file:///dir?x=1", "%3F"),
    ],
)
def test_bad_addresses(uri: str, said: str) -> None:
    assert said in refusal(uri)


# S3: a server without conditional writes


def test_a_server_that_ignores_conditions_is_refused(juicefs: JuiceFSGateway) -> None:
    text = refusal(f"{juicefs.uri}/x")
    assert "conditional writes" in text
    assert "single_writer" in text
    assert juicefs.endpoint_url in text
    assert list(open_store(juicefs.uri, probe=False).list("x/")) == []


def test_single_writer_is_taken_at_its_word(juicefs: JuiceFSGateway) -> None:
    store = open_store(f"{juicefs.uri}/{uuid.uuid4().hex}", single_writer=True)
    assert store.config.single_writer
    assert store.put_if_absent("x", b"1")
    assert not store.put_if_absent("x", b"2")
    assert store.get("x") == b"1"


# S3: failures midway


def is_put(head: bytes) -> bool:
    return head.startswith(b"PUT")


def test_a_lost_reply_to_our_own_write_is_read_back(s3: DevS3) -> None:
    replies = iter([True])
    with LossyProxy(s3.endpoint_url, lambda h: is_put(h) and next(replies, False)) as proxy:
        config = StoreConfig(f"{s3.uri}/{uuid.uuid4().hex}", endpoint_url=proxy.endpoint_url)
        store = S3Store(config, backoff=IMPATIENT)
        # The first PUT landed unheard; the second is refused because of it.
        assert not store.put_if_absent("commit", b"ours")
        assert proxy.lost == 1
        assert create_once(store, "commit", b"ours") == b"ours"


def test_a_write_never_answered_is_unknown_and_names_the_key(s3: DevS3) -> None:
    with LossyProxy(s3.endpoint_url, is_put) as proxy:
        config = StoreConfig(f"{s3.uri}/{uuid.uuid4().hex}", endpoint_url=proxy.endpoint_url)
        store = S3Store(config, backoff=IMPATIENT)
        with pytest.raises(CommitStateUnknown, match=r"commit.*after 3 tries.*last error: "):
            store.put_if_absent("commit", b"ours")
        assert proxy.lost == 3
        assert create_once(store, "commit", b"ours", backoff=IMPATIENT) == b"ours"


def test_replies_lost_while_reading_are_asked_for_again(s3: DevS3) -> None:
    replies = iter([True, True])
    with LossyProxy(
        s3.endpoint_url, lambda h: h.startswith(b"GET") and next(replies, False)
    ) as proxy:
        store = S3Store(StoreConfig(f"{s3.uri}/{uuid.uuid4().hex}", proxy.endpoint_url))
        store.put("x", b"data")
        assert store.get("x") == b"data"
        assert proxy.lost == 2


@pytest.fixture
def own_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[DevS3]:
    """A server of this test's own, to be killed."""
    with DevS3() as server:
        for name, value in server.env().items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.mark.slow
def test_a_killed_server_keeps_what_it_confirmed_and_clients_carry_on(own_s3: DevS3) -> None:
    refused = threading.Event()
    patient = Backoff(attempts=10_000, cap_s=0.1, sleep=lambda s: (refused.set(), time.sleep(s))[1])
    store = S3Store(StoreConfig(own_s3.uri), backoff=IMPATIENT)
    waiting = S3Store(store.config, backoff=patient)
    assert store.put_if_absent("kept", b"1")
    assert waiting.get("kept") == b"1"
    own_s3.stop(kill=True)
    with pytest.raises(CommitStateUnknown, match="during"):
        store.put_if_absent("during", b"1")
    with pytest.raises(Retryable, match="kept"):  # it answered before, so it may come back
        store.get("kept")
    results: list[bool] = []
    writer = threading.Thread(target=lambda: results.append(waiting.put_if_absent("later", b"1")))
    writer.start()
    assert refused.wait(30)
    own_s3.start()
    writer.join()
    assert results == [True]
    assert store.get("kept") == store.get("later") == b"1"


@pytest.mark.slow
def test_a_server_comes_back_on_its_directory_with_its_data_and_credentials(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for turn in (1, 2):
        with DevS3(tmp_path / "s3") as server:
            for name, value in server.env().items():
                monkeypatch.setenv(name, value)
            store = open_store(server.uri)
            assert store.put_if_absent("x", b"1") == (turn == 1)
    assert (tmp_path / "s3" / "s3.json").stat().st_mode & 0o077 == 0
    assert server.secret_key not in (tmp_path / "s3" / "server.log").read_text()


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        port = other.getsockname()[1]
        server = DevS3(port=port)
        with pytest.raises(UserError, match=f"port {port} is in use"), server:
            pass
    assert server.pid is None
    assert not server.directory.exists()


# Directories


def test_a_file_where_the_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    for uri in (tmp_path / "taken", tmp_path / "taken" / "below"):
        text = refusal(str(uri))
        assert "taken" in text
        assert "a file is where a directory should be" in text


def test_a_file_where_an_object_needs_a_directory(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("a", b"")
    with pytest.raises(UserError, match="a file is where a directory should be"):
        store.put("a/b", b"")
    assert [i.key for i in store.list("")] == ["a"]


@pytest.mark.parametrize("verb", ["put", "put_if_absent"])
def test_a_full_disk_is_named_and_leaves_nothing_half_written(verb: str, tmp_path: Path) -> None:
    code = f"""
import sys
from cluster.errors import UserError
from cluster.storage.open import open_store
store = open_store({str(tmp_path)!r})
store.put("whole", b"1")
try:
    store.{verb}("big", bytes(2 * 2**20))
except UserError as error:
    print(error)
assert [i.key for i in store.list("")] == ["whole"], list(store.list(""))
store.put("next", bytes(2**19))
"""
    results = run_on_tmpfs(tmp_path, "size=1m", code)
    assert "the disk is full" in results
    assert str(tmp_path) in results


def test_a_file_size_limit_is_named_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    code = f"""
import resource, signal
from cluster.errors import UserError
from cluster.storage.open import open_store
store = open_store({str(tmp_path)!r})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    store.put_if_absent("big", bytes(2000))
except UserError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ulimit -f" in done.stdout
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
def test_refusals_by_the_system_are_user_errors(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root is refused nothing, so the refusal is played by the one call that would meet it."""
    store = open_store(str(tmp_path))

    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(UserError, match=str(tmp_path)):
        store.put("x", b"")


def test_temporary_files_of_killed_writers_are_hidden_and_swept_in_time(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    store.put("x", b"1")
    old, new = tmp_path / ".tmp" / "old", tmp_path / ".tmp" / "new"
    for left in (old, new):
        left.write_text("half")
    os.utime(old, (0, 0))
    assert [i.key for i in store.list("")] == ["x"]
    assert [i.key for i in store.list(".t")] == []
    with pytest.raises(UserError, match="temporary"):
        store.get(".tmp/old")
    open_store(str(tmp_path))
    assert not old.exists()
    assert new.exists()


def test_listing_outlives_concurrent_deletion(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for i in range(200):
        store.put(f"d{i % 10}/{i}", b"")
    done = threading.Event()

    def remove() -> None:
        for i in range(200):
            store.delete(f"d{i % 10}/{i}")  # and with the last one its directory
        done.set()

    remover = threading.Thread(target=remove)
    remover.start()
    seen = [len(list(store.list("")))]
    while not done.is_set():
        seen.append(len(list(store.list(""))))
    remover.join()
    assert list(store.list("")) == []
    assert list(store.list_dirs("")) == []
    assert seen == sorted(seen, reverse=True)


def test_plain_paths_and_file_addresses_are_one_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    open_store("./un0 data#1").put("x", b"1")
    uri = open_store("un0 data#1", probe=False).config.uri
    assert uri == f"file://{tmp_path}/un0%20data%231"
    for same in (uri, uri.replace("file://", "file://localhost"), "~/un0 data#1"):
        assert open_store(same, endpoint_url="http://ignored").config == StoreConfig(
            uri, existing=True
        )
        assert open_store(same).get("x") == b"1"


def test_opening_without_a_probe_touches_nothing(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "absent"), probe=False)
    assert list(store.list("")) == []
    assert not (tmp_path / "absent").exists()
