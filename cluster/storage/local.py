"""A store in a directory: the embedded default, also right on a shared POSIX file system.

Every write goes to a temporary file under ``<root>/.tmp/``, is flushed to the disk, and then
appears under its name in one step: ``rename`` to replace, ``exclusive.place`` to create only if
absent.
"""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit

from cluster.clock import utc_now
from cluster.errors import (
    ClusterError,
    CommitStateUnknown,
    Fatal,
    NotFound,
    Retryable,
    StoreGone,
    UserError,
)
from cluster.storage.chunks import Chunks
from cluster.storage.exclusive import NoHardLinks, file_system_of, place
from cluster.storage.local_listing import objects_under
from cluster.storage.object_store import ObjectInfo, StoreConfig, check_key, check_prefix

_TEMP = ".tmp"
_STALE_TEMP_S = 24 * 3600.0
_TRIES = 10

_FIXES = {
    errno.ENOSPC: "the disk is full: free some space or choose another directory",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another directory",
    errno.EFBIG: "the file would exceed the size limit (see `ulimit -f`): raise it",
    errno.EACCES: "permission denied: make the directory writable or choose another",
    errno.EPERM: "not permitted: make the directory writable or choose another",
    errno.EROFS: "the file system is read-only: choose another directory",
    errno.ENOTDIR: "a file is where a directory should be: move it or choose another directory",
    errno.EEXIST: "a file is where a directory should be: move it or choose another directory",
    errno.EISDIR: "a directory is where a file should be: move it or choose another directory",
    errno.ENAMETOOLONG: "the path is too long: choose a shorter directory",
    errno.ELOOP: "symbolic links go round in a circle: choose another directory",
}
_MAY_PASS = {
    errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.EIO, errno.EMFILE, errno.ENFILE,
    errno.ESTALE, errno.ETIMEDOUT, errno.ENOENT,
}  # fmt: skip


class LocalStore:
    """The store of ``file:///absolute/dir``.

    The directory is made by the first write, unless ``config.existing``: then it was there once,
    and every call raises StoreGone when it is there no more. An empty one in its place would look
    like a store in which nothing was ever done.
    """

    def __init__(self, config: StoreConfig) -> None:
        self.config = config
        self._root = self.directory = Path(unquote(urlsplit(config.uri).path))

    def get(self, key: str) -> bytes:
        with self._reading(key) as path:
            return path.read_bytes()

    def put(self, key: str, data: bytes | Chunks) -> None:
        path = self._path(key)
        with self._translated("write", path), self._staged(data) as temp:
            self._in_its_directory(path, lambda: temp.replace(path))
            _sync_dir(path.parent)

    def put_if_absent(self, key: str, data: bytes) -> bool:
        path = self._path(key)
        with self._translated("write", path), self._staged(data) as temp:
            try:
                self._in_its_directory(path, lambda: place(temp, path))
            except FileExistsError:
                return False
            try:
                _sync_dir(path.parent)
            except OSError as error:
                raise CommitStateUnknown(f"{path}: written, but not flushed: {error}") from error
            return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        above, slash, start = check_prefix(prefix).rpartition("/")
        root = os.path.join(self._root, "")  # noqa: PTH118
        above += slash
        if after and not after.startswith(above):
            if after > above:
                return
            after = ""
        with self._translated("list", self._root / above):
            self._refuse_gone()
            skip = "" if above else f"{_TEMP}/"
            yield from objects_under(root, above, start, after[len(above) :], skip)

    def list_dirs(self, prefix: str) -> Sequence[str]:
        top = self._root / check_prefix(prefix)
        with self._translated("list", top):
            self._refuse_gone()
            try:
                with os.scandir(top) as entries:
                    found = {entry.name for entry in entries if entry.is_dir()}
            except (FileNotFoundError, NotADirectoryError):
                return []
        return sorted(found - {_TEMP} if not prefix else found)

    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._translated("delete", path), suppress(FileNotFoundError, NotADirectoryError):
            path.unlink()
            for directory in path.parents:
                if directory == self._root:
                    break
                try:
                    directory.rmdir()
                except OSError:  # something else is in it
                    break

    def open_reader(self, key: str) -> AbstractContextManager[BinaryIO]:
        with self._reading(key) as path:
            return path.open("rb")

    def settled(self) -> LocalStore:
        """The same store, now that it is known to exist."""
        return LocalStore(replace(self.config, existing=True))

    def sweep(self) -> None:
        """Remove temporary files that killed processes left behind more than a day ago."""
        oldest_s = utc_now().timestamp() - _STALE_TEMP_S
        with suppress(OSError):  # none yet, or not ours to remove
            for temp in (self._root / _TEMP).iterdir():
                with suppress(FileNotFoundError):  # another process sweeps too
                    if temp.stat().st_mtime < oldest_s:
                        temp.unlink()

    def _path(self, key: str) -> Path:
        if check_key(key).startswith(f"{_TEMP}/"):
            raise UserError(f"object key {key!r}: {_TEMP}/ is kept for temporary files; rename it")
        return self._root / key

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with self._translated("read", path):
            try:
                yield path
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
                self._refuse_gone()
                raise NotFound(f"no object {path}") from error

    @contextmanager
    def _staged(self, data: bytes | Chunks) -> Iterator[Path]:
        """A flushed temporary file of the data, gone afterwards unless it was renamed."""
        temp = self._root / _TEMP / uuid.uuid4().hex
        self._make_dirs(temp.parent)
        try:
            with temp.open("xb") as file:
                file.writelines(data.buffers if isinstance(data, Chunks) else (data,))
                file.flush()
                os.fsync(file.fileno())
            yield temp
        finally:
            with suppress(OSError):
                temp.unlink()

    def _in_its_directory(self, path: Path, put: Callable[[], object]) -> None:
        """Put the file there, again if its directory, then empty, was removed meanwhile."""
        for tries_left in reversed(range(_TRIES)):
            try:
                self._make_dirs(path.parent)
                put()
                return
            except FileNotFoundError:
                if not tries_left:
                    raise

    def _make_dirs(self, path: Path) -> None:
        """Make the directory and its parents, each flushed into the one above it."""
        if path.is_dir():
            return
        if path == self._root:
            self._refuse_gone()
        self._make_dirs(path.parent)
        try:
            path.mkdir()
        except FileExistsError:
            # Another made it, and may have removed it since: then the caller tries again. Not to be
            # raised as it is: to put_if_absent it would mean that the object is there.
            if os.path.lexists(path) and not path.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, "is no directory", str(path)) from None
        _sync_dir(path.parent)

    def _refuse_gone(self) -> None:
        if self.config.existing and not self._root.is_dir():
            raise StoreGone(
                f"the store {self._root} is gone: it was removed, moved or unmounted while in "
                "use; bring it back, or begin again in another directory"
            )

    @contextmanager
    def _translated(self, verb: str, path: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno == errno.ENOENT:
                self._refuse_gone()
            raise self._translate(verb, path, error) from error

    def _translate(self, verb: str, path: Path, error: OSError) -> ClusterError:
        at = f"cannot {verb} {path}"
        if isinstance(error, NoHardLinks):
            fix = "choose a directory on ext4, xfs or NFS, say, or an s3:// store"
            return UserError(
                f"{at}: {file_system_of(self._root) or 'the file system'} has no hard links "
                f"({error.strerror}), by which a shard is committed exactly once: {fix}",
                fix,
            )
        if error.errno == errno.ENOSPC and _no_inodes(self._root):
            fix = "delete small files or choose another directory"
            return UserError(f"{at}: the file system has no inodes left: {fix}", fix)
        if words := _FIXES.get(error.errno or 0):
            return UserError(f"{at}: {words}", words.partition(": ")[2])
        if error.errno in _MAY_PASS:
            return Retryable(f"{at}: {error}")
        return Fatal(f"{at}: {error}")


def _sync_dir(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _no_inodes(path: Path) -> bool:
    try:
        found = os.statvfs(path)
    except OSError:
        return False
    return found.f_files > 0 and found.f_favail == 0
