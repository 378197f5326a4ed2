"""Repetitions in the rows of an image, for DEFLATE (RFC 1951), as a compiled loop.

Pixels repeat, not bytes: only places where a pixel or a row begins are looked up, and a pixel of
which nothing is known becomes three literals at once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.words import Int, load32, load64, store64, trailing_zeros
from un0.jit import compiled

REACH = 1 << 15  # bytes; no match is from farther back
LONGEST = 258  # bytes of a match
NEAR = 1 << 12  # bytes; a pixel alone is cheaper as literals than as a match from farther back

# A token is 32 bits: three literals, or with a flag one, or a match, as length - 3 and distance - 1
MATCH, SINGLE = 1 << 31, 1 << 30
DISTANCE_BITS = 15

TABLE_BITS = 11
TABLE = 1 << TABLE_BITS
_MIX = np.uint64(0x9E3779B1)
_MASK24, _MASK32 = np.uint64(0xFFFFFF), np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32 - TABLE_BITS)

# After so many pixels in a row of which nothing was known, only every eighth is looked up
_PATIENCE, _STRIDE = 64, 8 * 3

_BYTE, _8, _16, _257 = np.uint64(255), np.uint64(8), np.uint64(16), np.uint64(257)

Ints = NDArray[np.int32]


def length_codes() -> tuple[Ints, Ints, Ints]:
    """Of the lengths 3 to 258 the codes from 0; of a code the first length and its extra bits."""
    extra = [0] * 8 + [bits for bits in range(1, 6) for _ in range(4)] + [0]
    first = np.cumsum([3] + [1 << bits for bits in extra[:-1]])
    first[-1] = LONGEST
    code = np.searchsorted(first, np.arange(3, LONGEST + 1), "right") - 1
    return code.astype(np.int32), first.astype(np.int32), np.array(extra, np.int32)


def distance_codes() -> tuple[Ints, Ints, Ints]:
    """The same of the distances 1 to 256, then of every 128th to 32768."""
    extra = [0, 0] + [bits for bits in range(14) for _ in range(2)]
    first = np.cumsum([1] + [1 << bits for bits in extra[:-1]])
    distances = np.concatenate([np.arange(1, 257), np.arange(1, REACH, 128)])
    code = np.searchsorted(first, distances, "right") - 1
    return code.astype(np.int32), first.astype(np.int32), np.array(extra, np.int32)


_LENGTH_CODE, _DISTANCE_CODE = length_codes()[0], distance_codes()[0]


@compiled
def distance_code(distance: Int) -> Int:
    near = distance <= 256
    return _DISTANCE_CODE[np.uint64(distance - 1 if near else 256 + ((distance - 1) >> 7))]


@compiled
def _slot(pixel: Int) -> Int:
    return ((np.uint64(pixel) * _MIX) & _MASK32) >> _SHIFT


@compiled
def _same(a: Int, b: Int, most: Int) -> Int:
    """How many bytes are alike at two addresses."""
    length = 0
    while length < most:
        differs = load64(a + length) ^ load64(b + length)
        if differs != np.uint64(0):
            return min(most, length + (trailing_zeros(differs) >> 3))
        length += 8
    return most


@compiled
def tokenize(
    base: Int, start: Int, stop: Int, stride: Int, table: Ints, tokens: Int, counts: Ints
) -> Int:
    """Write the tokens of bytes start..stop of an image's rows; returns the address past the last.

    base: address of the rows, each a filter's byte and then pixels, with 16 bytes to spare after
    the last. start, stop: where a row or a pixel begins, or ends. table: (TABLE,), where pixels
    were seen last; all -1 - REACH when an image begins. tokens: address. counts: (4, 288), zeros;
    becomes how often each symbol occurs, in the first row, and each code of distance, in the last.
    """
    p = start
    row = -(-start // stride) * stride  # where the next row begins
    missed = 0
    while p < stop:
        if p == row:
            row += stride
            distance, length = stride, 0
            if p >= stride and stride <= REACH:
                length = _same(base + p, base + p - stride, min(LONGEST, stop - p))
            if length < 4:
                kind = load32(base + p) & _BYTE
                store64(tokens, np.uint64(SINGLE) | kind)
                tokens += 4
                counts[0, kind] += 1
                p += 1
                continue
        else:
            pixel = load32(base + p) & _MASK24
            slot = _slot(pixel)
            seen = np.int64(table[slot])
            table[slot] = p
            distance, length = p - seen, 0
            if distance <= REACH and load32(base + seen) & _MASK24 == pixel:
                length = 3
                if load32(base + p + 3) & _MASK24 == load32(base + seen + 3) & _MASK24:
                    length += _same(base + p + 3, base + seen + 3, min(LONGEST, stop - p) - 3)
            if length < 3 or (length < 6 and distance > NEAR):
                missed += 1
                end = p + 3 if missed < _PATIENCE else min(row, stop, p + _STRIDE)
                while p < end:
                    pixel = load32(base + p) & _MASK24
                    store64(tokens, pixel)
                    tokens += 4
                    counts[0, pixel & _BYTE] += 1
                    counts[1, (pixel >> _8) & _BYTE] += 1
                    counts[2, pixel >> _16] += 1
                    p += 3
                continue
            missed = 0
        if length > 3:
            end = p + length
            while row < end:
                row += stride
            if row > end:
                end -= (end - (row - stride) - 1) % 3
            table[_slot(load32(base + end - 3) & _MASK24)] = end - 3
            length = end - p
        store64(tokens, np.uint64(MATCH | (length - 3) << DISTANCE_BITS | (distance - 1)))
        tokens += 4
        counts[0, _257 + np.uint64(_LENGTH_CODE[np.uint64(length - 3)])] += 1
        counts[3, np.uint64(distance_code(distance))] += 1
        p += length
    for symbol in range(256):
        counts[0, symbol] += counts[1, symbol] + counts[2, symbol]
    counts[0, 256] = 1
    return tokens
