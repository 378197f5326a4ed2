"""Encode images as baseline JPEG (ITU T.81) of quality 95, 4:4:4; fast for many small ones.

A general encoder sets up its tables for every image, which for a small one is half of the time, and
hands over a Python object. Here a compiled loop goes through the images of a batch with one set of
tables. The files are those of libjpeg-turbo, byte for byte.
"""

from __future__ import annotations

from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.encoded import LENGTH_BYTES, Encoded
from cluster.pipeline.jpeg_colours import PIXELS, split
from cluster.pipeline.jpeg_dct import LANES, transform
from cluster.pipeline.jpeg_tables import SIZE, Tables, header, tables
from cluster.pipeline.words import (
    Int,
    load16_signed,
    load32,
    load64,
    store64,
    store64_big,
    trailing_zeros,
)
from un0.jit import compiled

_MOST_SIDE = 65_500  # as libjpeg
_BLOCK = 64  # samples
_BLOCK_BYTES = 2 * 224  # at most: 16 + 10 bits a coefficient, and each byte may need another
_SPARE = 16
_END = 0xD9
_LONGEST_RUN = 15  # of zeros before a coefficient; more take codes of their own
_WHOLE_RUN = 0xF0
_REST = 0
_MOST = 1 << 14  # values and their differences are smaller, even where words of 16 bits overflow
_STEP, _DC_BYTES, _AC_BYTES = 2 * _BLOCK * LANES, 4 * 12, 4 * 256  # from one kind to the next

Bytes = NDArray[np.uint8]


def encode_jpeg(batch: Bytes) -> Encoded:
    """A JPEG file of each image (B, H, W, 3), RGB uint8.

    A file depends on its own image only. No GIL is held while images are encoded. The first call on
    a machine compiles, for some seconds; later ones read compiled code.
    Raises ValueError if the images have no pixels, or more than a JPEG may hold.
    """
    count, height, width, _ = batch.shape
    if not (0 < height <= _MOST_SIDE and 0 < width <= _MOST_SIDE):
        raise ValueError(
            f"images are {width} x {height}; JPEG takes 1 to {_MOST_SIDE} pixels a side"
        )
    head = _head(height, width)
    blocks = 3 * (-(-height // 8)) * (-(-width // 8))
    most = len(head) + blocks * _BLOCK_BYTES + _SPARE
    files, starts = np.empty(count * most, np.uint8), np.zeros(count + 1, np.int64)
    images = np.ascontiguousarray(batch).reshape(count, height, 3 * width)
    codes = np.empty(blocks * _BLOCK_BYTES + _SPARE, np.uint8)
    _encode(images, head, tables(2 * LANES), _order(), _values(), codes, files, starts)
    files.resize(starts[-1], refcheck=False)  # gives back what was never written to
    return Encoded(files, starts)


@lru_cache(16)
def _head(height: int, width: int) -> Bytes:
    return np.frombuffer(bytes(LENGTH_BYTES) + header(height, width), np.uint8)


@cache
def _order() -> NDArray[np.int64]:
    """(64,): for each place in a block, its bit in the order in which they are written."""
    found = np.empty(_BLOCK, np.int64)
    found[tables(2 * LANES).zigzag] = (np.uint64(1) << np.arange(_BLOCK, dtype=np.uint64)).view(
        np.int64
    )
    return found


@cache
def _values() -> NDArray[np.int32]:
    """(2 _MOST,): of each value from -_MOST, the bits that tell it from others of its size, and
    their number: ``bits << SIZE | size``."""
    values = np.arange(-_MOST, _MOST)
    sizes = np.array([abs(int(value)).bit_length() for value in values])
    bits = (values + (values >> 63)) & ((1 << sizes) - 1)
    found: NDArray[np.int32] = (bits << SIZE | sizes).astype(np.int32)
    return found


@compiled
def _encode(
    images: Bytes,
    head: Bytes,
    tables: Tables,
    order: NDArray[np.int64],
    values: NDArray[np.int32],
    codes: Bytes,
    files: Bytes,
    starts: NDArray[np.int64],
) -> None:
    _, height, width = images.shape
    across, down = (width + 23) // 24, (height + 7) // 8
    blocks = across * down
    planes = np.empty((3, 8 * down, (8 * across + PIXELS - 1) // PIXELS * PIXELS), np.int16)
    row = np.empty(3 * planes.shape[2], np.uint8)
    samples = np.zeros((3, _BLOCK, LANES), np.int16)
    masks = np.empty((3, LANES), np.int64)
    begin, to_file = np.int64(codes.ctypes.data), np.int64(files.ctypes.data)
    # Where tables and blocks lie: to hand over arrays would take longer than to write a code. Those
    # of which only this is used are the caller's: numba frees its own after their last use.
    places, sizes = np.int64(tables.places.ctypes.data), np.int64(values.ctypes.data) + 4 * _MOST
    dc, ac = np.int64(tables.dc.ctypes.data), np.int64(tables.ac.ctypes.data)
    own, some = np.int64(samples.ctypes.data), np.int64(masks.ctypes.data)
    for b in range(len(images)):
        at = starts[b]
        for i in range(len(head)):
            files[at + i] = head[i]
        to, bits, held = begin, np.uint64(0), np.uint64(0)
        split(images[b], row, planes)
        last, last_blue, last_red = np.int64(0), np.int64(0), np.int64(0)
        for first in range(0, blocks, LANES):
            count = min(LANES, blocks - first)
            _gather(planes, first, count, across, samples)
            masks[:] = 0
            for c in range(3):
                quotients = tables.quotients[min(c, 1)]
                transform(own + c * _STEP, quotients, order, some + 8 * c * LANES)
            for lane in range(count):
                at_lane, mask = own + 2 * lane, some + 8 * lane
                to, bits, held = _block(
                    to, bits, held, at_lane, load64(mask), last, places, sizes, dc, ac
                )
                last = load16_signed(at_lane)
                at_lane, mask = at_lane + _STEP, mask + 8 * LANES
                to, bits, held = _block(
                    to, bits, held, at_lane, load64(mask), last_blue, places, sizes,
                    dc + _DC_BYTES, ac + _AC_BYTES,
                )  # fmt: skip
                last_blue = load16_signed(at_lane)
                at_lane, mask = at_lane + _STEP, mask + 8 * LANES
                to, bits, held = _block(
                    to, bits, held, at_lane, load64(mask), last_red, places, sizes,
                    dc + _DC_BYTES, ac + _AC_BYTES,
                )  # fmt: skip
                last_red = load16_signed(at_lane)
        if held > 0:  # what is left of the last byte is filled with ones
            store64_big(to, bits | (np.uint64(0xFFFFFFFFFFFFFFFF) >> held))
            to += 1
        stop = _stuffed(begin, to, to_file + at + len(head)) - to_file
        files[stop], files[stop + 1] = 255, _END
        stop += 2
        for i in range(LENGTH_BYTES):
            files[at + i] = ((stop - at - LENGTH_BYTES) >> (8 * i)) & 255
        starts[b + 1] = stop


@compiled
def _gather(planes: Any, first: Int, count: Int, across: Int, samples: Any) -> None:
    """The samples of blocks first to first + count - 1, side by side."""
    for lane in range(count):
        top, left = (first + lane) // across * 8, (first + lane) % across * 8
        for c in range(3):
            for y in range(8):
                for x in range(8):
                    samples[c, 8 * y + x, lane] = planes[c, top + y, left + x]


@compiled
def _block(
    to: Int,
    bits: Int,
    held: Int,
    block: Int,
    mask: Int,
    last: Int,
    places: Int,
    values: Int,
    dc: Int,
    ac: Int,
) -> tuple[Int, Int, Int]:
    """Write a block's codes. last: the first coefficient of the block before."""
    low = np.uint64((1 << SIZE) - 1)
    entry = load32(values + 4 * (load16_signed(block) - last))
    to, bits, held = _put(to, bits, held, load32(dc + 4 * np.int64(entry & low)), entry)
    rest = mask & ~np.uint64(1)
    before = np.int64(0)
    while rest != 0:
        k = trailing_zeros(rest)
        rest &= rest - np.uint64(1)
        run = k - before - 1
        before = k
        while run > _LONGEST_RUN:
            to, bits, held = _put(to, bits, held, load32(ac + 4 * _WHOLE_RUN), np.uint64(0))
            run -= _LONGEST_RUN + 1
        value = load16_signed(block + np.int64(load32(places + 4 * k)))
        entry = load32(values + 4 * value)
        code = load32(ac + 4 * ((run << 4) + np.int64(entry & low)))
        to, bits, held = _put(to, bits, held, code, entry)
    if before < _BLOCK - 1:
        to, bits, held = _put(to, bits, held, load32(ac + 4 * _REST), np.uint64(0))
    return to, bits, held


@compiled
def _put(to: Int, bits: Int, held: Int, code: Int, entry: Int) -> tuple[Int, Int, Int]:
    """Write a code and, in the room behind it, the bits of a value; see ``Tables`` for both.

    bits: from the highest on, ``held`` of them, less than 8 before and afterwards.
    """
    held += code & np.uint64((1 << SIZE) - 1)
    word = (code >> np.uint64(SIZE)) | (entry >> np.uint64(SIZE))
    bits |= word << (np.uint64(64) - held)
    store64_big(to, bits)
    bits <<= held & ~np.uint64(7)
    return to + np.int64(held >> np.uint64(3)), bits, held & np.uint64(7)


@compiled
def _stuffed(codes: Int, stop: Int, to: Int) -> Int:
    """Copy bytes, each 255 with a 0 behind it: else it were a marker. Returns where they end; up to
    8 bytes more are read, and written."""
    sevens, ones = np.uint64(0x7F7F7F7F7F7F7F7F), np.uint64(0x0101010101010101)
    while codes < stop:
        word = load64(codes)
        count = min(np.int64(8), stop - codes)
        if word & ~sevens & ((word & sevens) + ones):  # one of them, maybe of those behind
            for _ in range(count):
                store64(to, word & np.uint64(255))
                to += 2 if (word & np.uint64(255)) == 255 else 1
                word >>= np.uint64(8)
        else:
            store64(to, word)
            to += count
        codes += 8
    return to
