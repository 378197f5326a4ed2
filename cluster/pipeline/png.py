"""Encode images as PNG (RFC 2083, RGB of 8 bits); fast for many small ones.

A general encoder spends most of its time on setting up zlib and on trying every filter on every
row. Here all rows take the filter Sub, a whole batch at once, and libdeflate compresses.
"""

from __future__ import annotations

import struct
import zlib

import deflate
import numpy as np
from numpy.typing import NDArray

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SUB = 1  # a byte's difference from the same colour of the pixel on its left
_LEVEL = 3  # libdeflate's: 15% smaller files than 1 and 20% more time; above 3 it gains little


def encode_png(batch: NDArray[np.uint8]) -> list[bytes]:
    """A PNG file of each image (B, H, W, 3), RGB uint8."""
    count, height, width, _ = batch.shape
    pixels = batch.reshape(count, height, 3 * width)
    rows = np.empty((count, height, 1 + 3 * width), dtype=np.uint8)
    rows[:, :, 0] = _SUB
    rows[:, :, 1:4] = pixels[:, :, :3]
    np.subtract(pixels[:, :, 3:], pixels[:, :, :-3], out=rows[:, :, 4:])
    head = _SIGNATURE + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    end = _chunk(b"IEND", b"")
    return [head + _chunk(b"IDAT", deflate.zlib_compress(part, _LEVEL)) + end for part in rows]


def _chunk(kind: bytes, data: bytes) -> bytes:
    named = kind + data
    return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))
