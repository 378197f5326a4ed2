"""Encode images as PNG (RFC 2083, RGB of 8 bits); fast for many small ones.

A general encoder spends most of its time on setting up zlib and on trying every filter on every
row. Here a compiled loop goes through the images of a batch with one set of small tables.
"""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.blocks import BLOCK_SCRATCH, MOST_BYTES, ROOM, write_block
from cluster.pipeline.checksums import adler32, crc32
from cluster.pipeline.filters import EDGE, LANES, apply, choose, pad
from cluster.pipeline.huffman import MOST
from cluster.pipeline.matches import REACH, TABLE, tokenize
from cluster.pipeline.presets import Presets, presets
from un0.jit import compiled

_SPARE = 16  # bytes read beyond the last row

Bytes = NDArray[np.uint8]


def encode_png(batch: Bytes) -> tuple[NDArray[np.int64], Bytes]:
    """A PNG file of each image (B, H, W, 3), RGB uint8, as (B + 1,) offsets and all bytes."""
    count, height, width, _ = batch.shape
    if height == 0 or width == 0:
        raise ValueError(f"images are {height} x {width}; PNG needs at least 1 x 1")
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    before, after = np.frombuffer(head + bytes(4) + b"IDAT\x78\x01", np.uint8), np.frombuffer(_chunk(b"IEND", b""), np.uint8)
    size = height * (1 + 3 * width)
    most = len(before) + len(after) + 8 + size + 8 * (1 + size // (MOST_BYTES // 2))
    files = np.empty(count * most + ROOM, np.uint8)
    offsets = np.zeros(count + 1, np.int64)
    images = np.ascontiguousarray(batch).reshape(count, height, 3 * width)
    rows, tokens = np.empty(size + LANES + _SPARE, np.uint8), np.empty(size + 16, np.uint32)
    padded = np.zeros((height + 1) * (EDGE + 3 * width) + LANES + EDGE, np.uint8)
    _encode(images, before, after, presets(), padded, rows, tokens, files, offsets)
    files.resize(offsets[-1], refcheck=False)
    return offsets, files


def _chunk(kind: bytes, data: bytes) -> bytes:
    named = kind + data
    return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))


@compiled
def _encode(
    images: NDArray[np.uint8],
    before: Bytes,
    after: Bytes,
    presets: Presets,
    padded: Bytes,
    rows: Bytes,
    tokens: NDArray[np.uint32],
    files: Bytes,
    offsets: NDArray[np.int64],
) -> None:
    table = np.empty(TABLE, np.int32)
    counts, scratch = np.empty((4, MOST), np.int32), np.empty(BLOCK_SCRATCH, np.int32)
    _, height, width = images.shape
    stride = 1 + width
    size = height * stride
    line = EDGE + width
    lines = padded[: (height + 1) * line].reshape(height + 1, line)
    first = np.int64(padded.ctypes.data) + line
    start = np.int64(files.ctypes.data)
    base, first_token = np.int64(rows.ctypes.data), np.int64(tokens.ctypes.data)
    at = 0
    for b in range(len(images)):
        for i in range(len(before)):
            files[at + i] = before[i]
        pad(images[b], lines)
        apply(choose(first, height, line), first, height, line, base)
        table[:] = -1 - REACH
        to, bits, held = start + at + len(before), np.uint64(0), np.int64(0)
        begin = np.int64(0)
        while begin < size:
            end = min(size, begin + MOST_BYTES)
            if end < size:
                end -= max(0, end % stride - 1) % 3
            counts[:] = 0
            past = tokenize(base, begin, end, stride, table, first_token, counts)
            to, bits, held = write_block(
                to, bits, held, int(end == size), (first_token, past), (base + begin, base + end),
                counts, presets, scratch,
            )
            begin = end
        stop = to - start
        if held > 0:
            files[stop] = bits
            stop += 1
        stop = _big_endian(files, stop, adler32(rows[:size]))
        data = at + len(before) - 6
        _big_endian(files, data - 4, stop - data - 4)
        stop = _big_endian(files, stop, crc32(start + data, stop - data))
        for i in range(len(after)):
            files[stop + i] = after[i]
        at = stop + len(after)
        offsets[b + 1] = at


@compiled
def _big_endian(data: Bytes, at: int, word: int) -> int:
    """Write a word of 32 bits; returns where it ends."""
    for i in range(4):
        data[at + i] = (word >> (24 - 8 * i)) & 255
    return at + 4
