"""Bytes in several buffers, never joined."""

from __future__ import annotations

import hashlib
import io
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer


class Chunks:
    """Bytes in several buffers, never joined. Immutable, as long as nobody writes the buffers.

    buffers: of bytes each, in order. size_bytes: of all of them.
    """

    def __init__(self, buffers: Iterable[Buffer]) -> None:
        views = (memoryview(buffer).cast("B") for buffer in buffers)
        self.buffers: tuple[memoryview, ...] = tuple(view for view in views if len(view))
        self.size_bytes: int = sum(map(len, self.buffers))

    def __bytes__(self) -> bytes:
        """All of them joined: a copy."""
        return b"".join(self.buffers)

    def sha256(self) -> str:
        """Hexadecimal digest of all bytes; computed once, without the GIL."""
        return self._sha256

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for buffer in self.buffers:
            digest.update(buffer)
        return digest.hexdigest()

    def open(self) -> BinaryIO:
        """A seekable reader; each caller gets its own."""
        return cast(BinaryIO, _Reader(self))


class _Reader(io.RawIOBase):
    """Reads across the buffers; one read never ends short of what is there."""

    def __init__(self, chunks: Chunks) -> None:
        self._chunks = chunks
        self._starts = list(accumulate(map(len, chunks.buffers), initial=0))
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        origin = {
            io.SEEK_SET: 0,
            io.SEEK_CUR: self._at,
            io.SEEK_END: self._chunks.size_bytes,
        }[whence]
        if origin + offset < 0:
            raise ValueError(f"position {origin + offset} is before the start; seek to 0 or later")
        self._at = origin + offset
        return self._at

    def readinto(self, target: Buffer, /) -> int:
        room = memoryview(target).cast("B")
        filled = 0
        number = max(bisect_right(self._starts, self._at) - 1, 0)
        for start, buffer in zip(
            self._starts[number:], self._chunks.buffers[number:], strict=False
        ):
            part = buffer[self._at - start : self._at - start + len(room) - filled]
            room[filled : filled + len(part)] = part
            filled += len(part)
            self._at += len(part)
            if filled == len(room):
                break
        return filled
