"""Directories on odd file systems, and directories that go away while they are in use."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from cluster.errors import StoreGone, UserError
from cluster.storage import exclusive
from cluster.storage.open import open_store
from tests.support.mounts import run_on_tmpfs

NO_LINKS = [errno.ENOSYS, errno.EXDEV, errno.EIO, errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK]
RACE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from cluster.storage.open import open_store
store = open_store(sys.argv[1])
start = Barrier(8)
def write(writer):
    start.wait()
    return store.put_if_absent("race/x", f"writer {writer}".encode())
with ThreadPoolExecutor(8) as pool:
    results = list(pool.map(write, range(8)))
assert results.count(True) == 1, results
assert store.get("race/x") == f"writer {results.index(True)}".encode()
assert not store.put_if_absent("race/x", b"late")
print([info.key for info in store.list("")])
"""


@pytest.fixture(scope="module")
def nolink(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that takes hard links away from the process that preloads it."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler:
        pytest.skip("no C compiler here")
    library = tmp_path_factory.mktemp("nolink") / "nolink.so"
    source = Path(__file__).parents[2] / "support" / "nolink.c"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@pytest.mark.parametrize("number", NO_LINKS, ids=lambda n: errno.errorcode[n])
def test_without_hard_links_a_record_is_still_written_once(
    number: int, nolink: Path, memory_dir: Path
) -> None:
    kind = exclusive.file_system_of(memory_dir)
    if kind not in ("tmpfs", "ext4", "xfs", "btrfs", "overlay"):
        pytest.skip(f"{kind} may lack the exclusive rename")
    env = os.environ | {"LD_PRELOAD": str(nolink), "LINK_ERRNO": str(number)}
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(memory_dir)], env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "['race/x']\n"


@pytest.fixture
def no_links(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, _: Path) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM), str(self))

    monkeypatch.setattr(Path, "hardlink_to", refuse)


@pytest.mark.usefixtures("no_links")
@pytest.mark.parametrize("kind", ["fuse.rclone", "fuseblk", None])
def test_a_file_system_that_is_not_known_to_be_atomic_is_refused(
    kind: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusive, "file_system_of", lambda _: kind)
    with pytest.raises(UserError, match=r"has no hard links .*: choose a directory on ext4"):
        open_store(str(tmp_path))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.usefixtures("no_links")
def test_of_racing_exclusive_renames_one_wins_each_name(memory_dir: Path) -> None:
    if exclusive.file_system_of(memory_dir) is None:
        pytest.skip("the kind of file system is not known here")
    store = open_store(str(memory_dir))
    start = Barrier(8)

    def write(writer: int) -> list[bool]:
        start.wait()
        return [store.put_if_absent(f"race/{n}", bytes([writer])) for n in range(50)]

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(write, range(8)))
    for number, wins in enumerate(zip(*results, strict=True)):
        assert wins.count(True) == 1
        assert store.get(f"race/{number}") == bytes([wins.index(True)])


def test_the_kind_of_a_file_system_is_read_from_the_mounts() -> None:
    mounts = [
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw",
        "40 22 0:52 / /mnt/a\\040b rw shared:9 master:1 - fuse.rclone remote: rw",
    ]
    assert exclusive.kind_of("0:52", mounts) == "fuse.rclone"
    assert exclusive.kind_of("8:1", mounts) == "ext4"
    assert exclusive.kind_of("9:9", mounts) is None


@pytest.mark.parametrize("replica", [False, True])
def test_a_store_that_was_removed_is_gone_and_is_not_made_anew(
    replica: bool, tmp_path: Path
) -> None:
    place = tmp_path / "store"
    store = open_store(str(place))
    if replica:
        store = open_store(pickle.loads(pickle.dumps(store.config)), probe=False)
    store.put("a/b", b"1")
    shutil.rmtree(place)
    for call in (
        lambda: store.put("a/c", b"2"),
        lambda: store.put_if_absent("a/d", b"3"),
        lambda: store.get("a/b"),
        lambda: store.open_reader("a/b"),
        lambda: list(store.list("a/")),
        lambda: store.list_dirs("a/"),
    ):
        with pytest.raises(StoreGone, match=f"{place} is gone"):
            call()
    assert not place.exists()


def test_a_store_removed_while_it_is_written_to(tmp_path: Path) -> None:
    place = tmp_path / "store"
    store = open_store(str(place))

    def write(writer: int) -> int:
        for number in range(10_000):
            try:
                store.put(f"{writer}/{number}", b"")
            except StoreGone:
                return number
        return -1

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, writer) for writer in range(2)]
        while not (place / "0" / "5").exists():
            pass
        place.rename(tmp_path / "moved")
        assert all(writer.result() >= 0 for writer in writers)
    assert not place.exists()


def test_inodes_that_are_used_up_are_named(tmp_path: Path) -> None:
    code = f"""
from cluster.errors import UserError
from cluster.storage.open import open_store
store = open_store({str(tmp_path)!r})
try:
    for number in range(100):
        store.put(f"x/{{number}}", b"")
except UserError as error:
    print(error)
"""
    assert "no inodes left" in run_on_tmpfs(tmp_path, "nr_inodes=30", code)
