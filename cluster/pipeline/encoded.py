"""Encoded images as they lie in a Parquet page: no Python object per image."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LENGTH_BYTES = 4


@dataclass(frozen=True)
class Encoded:
    """Files of consecutive images in one buffer, each behind its length: Parquet's encoding PLAIN
    of a BYTE_ARRAY column, so that pages are made of it without another copy.

    data: uint8; for each image 4 bytes of length, little-endian, then the file.
    starts: int64 (B + 1,), where in data the length of each image lies; the last is its end.
    """

    data: NDArray[np.uint8]
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def file_bytes(self) -> int:
        """Size of all files without their lengths."""
        return len(self.data) - LENGTH_BYTES * len(self)

    def file(self, row: int) -> bytes:
        """The file of one image."""
        return self.data[self.starts[row] + LENGTH_BYTES : self.starts[row + 1]].tobytes()

    def files(self) -> list[bytes]:
        """The files of all images, an object each."""
        return [self.file(row) for row in range(len(self))]

    @classmethod
    def of(cls, files: Iterable[bytes]) -> Encoded:
        """Of files that an encoder gives one by one."""
        parts = [part for file in files for part in (struct.pack("<I", len(file)), file)]
        sizes = [len(file) + LENGTH_BYTES for file in parts[1::2]]
        starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)]).astype(np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), starts)
