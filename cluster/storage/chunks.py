"""Bytes in several buffers, never joined."""

from __future__ import annotations

import hashlib
import threading
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, cast

from cluster.storage.position import RawReader

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Chunks:
    """Bytes in several buffers, never joined. Immutable, as long as nobody writes the buffers.

    buffers: of bytes each, in order, none empty. size_bytes: of all of them.
    """

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        views = (memoryview(buffer).cast("B") for buffer in buffers)
        self.buffers: tuple[memoryview, ...] = tuple(view for view in views if len(view))
        self.size_bytes: int = sum(map(len, self.buffers))
        self._starts = list(accumulate(map(len, self.buffers), initial=0))
        self._digest: str | None = None
        # Its own: functools.cached_property has one lock for all instances in Python 3.11.
        self._digesting = threading.Lock()

    def __bytes__(self) -> bytes:
        """All of them joined: a copy."""
        return b"".join(self.buffers)

    def sha256(self) -> str:
        """Hexadecimal digest of all bytes; computed once, without the GIL."""
        with self._digesting:
            if self._digest is None:
                digest = hashlib.sha256()
                for buffer in self.buffers:
                    digest.update(buffer)
                self._digest = digest.hexdigest()
            return self._digest

    def pieces(self, start: int, stop: int) -> Iterator[memoryview]:
        """Views of the bytes [start, stop), as far as there are such bytes; start from 0."""
        first = max(bisect_right(self._starts, start) - 1, 0)
        for number in range(first, len(self.buffers)):
            before = self._starts[number]
            if before >= stop:
                break
            if piece := self.buffers[number][max(start - before, 0) : stop - before]:
                yield piece

    def part(self, start: int, stop: int) -> Chunks:
        """The bytes [start, stop), as far as there are such bytes; nothing is copied."""
        return Chunks(self.pieces(start, stop))

    def open(self) -> BinaryIO:
        """A seekable reader; each caller gets its own."""
        return cast(BinaryIO, _Reader(self))


class _Reader(RawReader):
    """Reads across the buffers; a read is short only at the end."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__(chunks.size_bytes)
        self._chunks = chunks

    def readinto(self, target: Buffer, /) -> int:
        room = memoryview(target).cast("B")
        filled = 0
        for piece in self._chunks.pieces(self._at, self._at + len(room)):
            room[filled : filled + len(piece)] = piece
            filled += len(piece)
        self._at += filled
        return filled
