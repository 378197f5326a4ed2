"""Listings of a directory tree in the order of their keys.

Large ones are made by several threads: most of the time is the kernel's, and a remote file system's
answers take their time.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from cluster.storage.object_store import ObjectInfo

_MANY = 512  # names of one directory, from which on threads are worth their start
_THREADS = 8
_A_TASK = 64  # names a thread looks at in a row
_AHEAD = 4 * _THREADS  # tasks
_A_TREE = 1000  # objects of a directory that a thread brings at most


def objects_under(
    root: str, directory: str, prefix: str, after: str, skip: str = ""
) -> Iterator[ObjectInfo]:
    """The files below a directory, in the order of their keys: a directory's name sorts with its
    '/'. In memory are the names of one directory a level, and some thousand objects.

    root: what keys are relative to; it and directory end in '/', directory may be ''. prefix,
    after: what the keys, from directory on, begin with and follow. skip: a name to pass over.
    Raises OSError for what is there and cannot be read, since that must not look empty.
    """
    plain: list[str] = []  # of which all is wanted
    for name in _names(root + directory, prefix, after.partition("/")[0]):
        if name[-1] != "/":
            if name.startswith(prefix) and name > after:
                plain.append(name)
        elif name != skip:
            rest = after[len(name) :] if after.startswith(name) else ""
            if rest or len(prefix) > len(name):
                yield from _all_of(root, directory, plain)
                plain = []
                yield from objects_under(root, directory + name, prefix[len(name) :], rest)
            elif name > after:
                plain.append(name)
    yield from _all_of(root, directory, plain)


def _all_of(root: str, directory: str, names: Sequence[str]) -> Iterator[ObjectInfo]:
    """These files of a directory, and all files below these directories in it."""
    if len(names) < _MANY:
        for name in names:
            yield from _below(root, directory + name)
        return
    parts = (names[low : low + _A_TASK] for low in range(0, len(names), _A_TASK))
    pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="list")
    try:
        coming: deque[Future[list[list[ObjectInfo] | str]]] = deque()
        for part in parts:
            coming.append(pool.submit(_looked_at, root, directory, part))
            if len(coming) >= _AHEAD:
                yield from _brought(root, coming.popleft().result())
        while coming:
            yield from _brought(root, coming.popleft().result())
    finally:
        pool.shutdown(cancel_futures=True)


def _looked_at(root: str, directory: str, names: Sequence[str]) -> list[list[ObjectInfo] | str]:
    """By name its objects, or its key where they are too many."""
    found: list[list[ObjectInfo] | str] = []
    for name in names:
        below = list(islice(_below(root, directory + name), _A_TREE + 1))
        found.append(directory + name if len(below) > _A_TREE else below)
    return found


def _brought(root: str, found: list[list[ObjectInfo] | str]) -> Iterator[ObjectInfo]:
    for below in found:
        yield from objects_under(root, below, "", "") if isinstance(below, str) else below


def _below(root: str, key: str) -> Iterator[ObjectInfo]:
    """The file; or, of a key that ends in '/', all files below."""
    if key[-1] == "/":
        for name in _names(root + key):
            yield from _below(root, key + name)
        return
    try:
        size_bytes = os.stat(root + key).st_size  # noqa: PTH116 (paths as text: there are many)
    except (FileNotFoundError, NotADirectoryError):  # deleted since
        return
    yield ObjectInfo(key, size_bytes)


def _names(path: str, prefix: str = "", first: str = "") -> list[str]:
    """Sorted names in a directory, directories' with a '/': those that may begin with the prefix,
    from ``first`` on and maybe some before."""
    names: list[str] = []
    try:
        with os.scandir(path) as entries:
            for entry in _from(entries, first):
                name = entry.name
                if entry.is_dir(follow_symlinks=False):
                    name += "/"
                elif entry.is_symlink() and os.path.isdir(entry.path):  # noqa: PTH112
                    continue
                if not prefix or name.startswith(prefix) or prefix.startswith(name):
                    names.append(name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    names.sort()
    return names


def _from(entries: Iterable[os.DirEntry[str]], name: str) -> Iterable[os.DirEntry[str]]:
    """Those from a name on, and maybe some before it. In one step each: there may be a million."""
    if not name:
        return entries
    size = len(name)  # "a" as a directory sorts after the name "a-b"
    return [entry for entry in entries if entry.name >= name or len(entry.name) < size]
