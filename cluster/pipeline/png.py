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
from cluster.pipeline.encoded import LENGTH_BYTES, Encoded
from cluster.pipeline.filters import EDGE, LANES, apply, choose, pad
from cluster.pipeline.huffman import MOST
from cluster.pipeline.matches import REACH, TABLE, tokenize
from cluster.pipeline.presets import Presets, presets
from cluster.pipeline.words import Int
from un0.jit import compiled

_ZLIB = b"\x78\x01"  # a stream with a window of 32 KiB
_STORED = 6  # bytes more than the pixels that a block has at most
_SPARE = 16  # read or written beyond the last row and the last token
_MOST_BYTES = 2**31 - 2**20  # of one IDAT chunk

Bytes = NDArray[np.uint8]


def encode_png(batch: Bytes) -> Encoded:
    """A PNG file of each image (B, H, W, 3), RGB uint8.

    A file depends on its own image only. No GIL is held while images are encoded. The first call on
    a machine compiles, for 10 to 20 s; later ones read compiled code.
    Raises ValueError if the images have no pixels, or more than a PNG may hold.
    """
    count, height, width, _ = batch.shape
    size = height * (1 + 3 * width)
    if height == 0 or width == 0 or size > _MOST_BYTES:
        raise ValueError(f"images are {width} x {height}; PNG takes 1 x 1 to 2 GiB of pixels")
    shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    head = bytes(LENGTH_BYTES) + b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", shape)
    before = _bytes(head + bytes(4) + b"IDAT" + _ZLIB)
    after = _bytes(_chunk(b"IEND", b""))
    blocks = 1 + size // (MOST_BYTES - 2)
    most = len(before) + size + _STORED * blocks + 8 + len(after)
    files, offsets = np.empty(count * most + ROOM, np.uint8), np.zeros(count + 1, np.int64)
    images = np.ascontiguousarray(batch).reshape(count, height, 3 * width)
    padded = np.zeros((height + 1) * (EDGE + 3 * width) + LANES + 2 * EDGE, np.uint8)
    rows, tokens = np.empty(size + LANES + _SPARE, np.uint8), np.empty(size + _SPARE, np.uint32)
    _encode(images, before, after, presets(), padded, rows, tokens, files, offsets)
    files.resize(offsets[-1], refcheck=False)  # gives back what was never written to
    return Encoded(files, offsets)


def _bytes(data: bytes) -> Bytes:
    return np.frombuffer(bytearray(data), np.uint8)


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
    stride, line = 1 + width, EDGE + width
    size = height * stride
    lines = padded[EDGE : EDGE + (height + 1) * line].reshape(height + 1, line)
    first = np.int64(lines.ctypes.data) + line
    base, start = np.int64(rows.ctypes.data), np.int64(files.ctypes.data)
    first_token = np.int64(tokens.ctypes.data)
    for b in range(len(images)):
        at = offsets[b]
        for i in range(len(before)):
            files[at + i] = before[i]
        pad(images[b], lines)
        apply(choose(first, height, line), first, height, line, base)
        table[:] = -1 - REACH
        to, bits, held = start + at + len(before), np.uint64(0), np.int64(0)
        begin = np.int64(0)
        while begin < size:
            end = min(size, begin + MOST_BYTES)
            if end < size:  # where a pixel or a row ends
                end -= max(0, end % stride - 1) % 3
            counts[:] = 0
            past = tokenize(base, begin, end, stride, table, first_token, counts)
            source, last = (base + begin, base + end), int(end == size)
            to, bits, held = write_block(
                to, bits, held, last, (first_token, past), source, counts, presets, scratch
            )
            begin = end
        stop = to - start
        if held > 0:
            files[stop] = bits
            stop += 1
        stop = _big_endian(files, stop, adler32(rows[:size]))
        data = at + len(before) - 2
        kind = data - 4
        _big_endian(files, kind - 4, stop - data)
        stop = _big_endian(files, stop, crc32(start + kind, stop - kind))
        for i in range(len(after)):
            files[stop + i] = after[i]
        stop += len(after)
        for i in range(LENGTH_BYTES):
            files[at + i] = ((stop - at - LENGTH_BYTES) >> (8 * i)) & 255
        offsets[b + 1] = stop


@compiled
def _big_endian(data: Bytes, at: Int, word: Int) -> Int:
    """Write a word of 32 bits; returns where it ends."""
    for i in range(4):
        data[at + i] = (word >> (24 - 8 * i)) & 255
    return at + 4
