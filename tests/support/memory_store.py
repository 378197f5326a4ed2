"""A store in memory, whose writes somebody may watch: for simulations of many processes in one."""

from __future__ import annotations

import io
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import BinaryIO

from cluster.errors import NotFound
from cluster.storage.chunks import Chunks
from cluster.storage.object_store import ObjectInfo, StoreConfig

OnWrite = Callable[[str, bytes | None], None]  # the key, and what it holds now; None: it is gone


class MemoryStore:
    """Objects in a dictionary. on_write: called with every change, after it."""

    def __init__(self, on_write: OnWrite = lambda *_: None) -> None:
        self.config = StoreConfig("memory:")
        self.objects: dict[str, bytes] = {}
        self._keys: list[str] = []
        self._on_write = on_write

    def get(self, key: str) -> bytes:
        try:
            return self.objects[key]
        except KeyError:
            raise NotFound(key) from None

    def put(self, key: str, data: bytes | Chunks) -> None:
        if key not in self.objects:
            insort(self._keys, key)
        self.objects[key] = bytes(data)  # type: ignore[arg-type]
        self._on_write(key, self.objects[key])

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if key in self.objects:
            return False
        self.put(key, data)
        return True

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        found = []
        for key in self._keys[bisect_left(self._keys, max(prefix, after)) :]:
            if not key.startswith(prefix):
                break
            if key > after:
                found.append(ObjectInfo(key, len(self.objects[key])))
        return iter(found)

    def list_dirs(self, prefix: str) -> Sequence[str]:
        names = (info.key.removeprefix(prefix) for info in self.list(prefix))
        return sorted({name.partition("/")[0] for name in names if "/" in name})

    def delete(self, key: str) -> None:
        if self.objects.pop(key, None) is not None:
            del self._keys[bisect_left(self._keys, key)]
            self._on_write(key, None)

    def open_reader(self, key: str) -> AbstractContextManager[BinaryIO]:
        return io.BytesIO(self.get(key))
