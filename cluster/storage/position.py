"""Where a reader of known size is: one way to seek for all of them."""

from __future__ import annotations

import io
import os


class Position:
    """A place in so many bytes (``_at``): seeking moves it, and whatever reads is to."""

    def __init__(self, size_bytes: int) -> None:
        self._size_bytes = size_bytes
        self._at = 0

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """As of a file. Raises ValueError for a place before the start."""
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size_bytes}[whence]
        if (at := origin + offset) < 0:
            raise ValueError(f"position {at} is before the start; seek to 0 or later")
        self._at = at
        return at


class RawReader(Position, io.RawIOBase):
    """A seekable raw stream, but for ``readinto``."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True
