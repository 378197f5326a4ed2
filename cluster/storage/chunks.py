"""An object's bytes in several buffers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Chunks:
    """Bytes in several buffers, never joined."""

    buffers: tuple[memoryview, ...]

    @cached_property
    def size_bytes(self) -> int:
        return sum(buffer.nbytes for buffer in self.buffers)

    @cached_property
    def _sha256(self) -> str:
        digest = hashlib.sha256()
        for buffer in self.buffers:
            digest.update(buffer)
        return digest.hexdigest()

    def sha256(self) -> str:
        """Hexadecimal digest of all bytes, computed once."""
        return self._sha256

    def __bytes__(self) -> bytes:
        return b"".join(self.buffers)
