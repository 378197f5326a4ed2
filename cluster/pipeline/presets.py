"""Codes made before the first image: to choose among them is far cheaper than to make one.

A byte of a filtered image is near 0 from either side, and the less likely the farther, by about the
same factor for every step. So a few dozen codes, by that factor and by how much of an image
repeats, fit most images to 3 %, and small ones have no better: a code of their own would have to be
described more exactly. All in whole numbers: the same on every machine.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.headers import DISTANCES, SCRATCH, SYMBOLS, write_header
from cluster.pipeline.huffman import LENGTH, MOST, code

Ints = NDArray[np.int32]

# Sizes at which chances have fallen to 1/e
_SCALES = (1, 2, 3, 4, 6, 8, 11, 16, 23, 32, 48, 80)
_SHARES = (2, 60, 200, 400, 600)  # of matches in a thousand symbols
_WHOLE = 1 << 30
_MANY = 60_000  # symbols a code is made for
_WORDS = 128  # room for a description
# How often matches have each code of length and of distance, in images of clothes on black
_LENGTHS = [640, 1, 1, 25, 3, 1, 8, 2, 7, 2, 12, 5, 16, 7, 14, 12, 7, 3, 2, 1, 2, 2, *[1] * 7]
_DISTANCES = [
    *(1, 1, 85, 2, 22, 2, 36, 16, 34, 18, 40, 31, 75, 106, 58, 44, 64, 42, 40, 23, 20, 8, 4),
    *(2, 2, 2, 1, 1, 1, 1),
]


class Presets(NamedTuple):
    """P codes, in groups by how likely matches are.

    symbols (P, SYMBOLS), distances (P, DISTANCES): as ``huffman.code`` makes them. headers: (P,
    words) of 32 bits, their descriptions, of which the first ``header_bits`` (P,) count. bounds:
    (groups - 1,), between groups, matches in a thousand symbols. fixed_symbols, fixed_distances:
    the code that DEFLATE itself has, which needs no description.
    """

    symbols: Ints
    distances: Ints
    headers: NDArray[np.uint32]
    header_bits: Ints
    bounds: Ints
    fixed_symbols: Ints
    fixed_distances: Ints


@cache
def presets() -> Presets:
    """All presets; the first call takes a few milliseconds."""
    pairs = [(share, scale) for share in _SHARES for scale in _SCALES]
    symbols = np.zeros((len(pairs), SYMBOLS), np.int32)
    distances = np.zeros((len(pairs), DISTANCES), np.int32)
    headers = np.zeros((len(pairs), _WORDS), np.uint32)
    header_bits = np.zeros(len(pairs), np.int32)
    counts, scratch = np.zeros(MOST, np.int32), np.zeros(SCRATCH, np.int32)
    start = headers.ctypes.data
    for i, (share, scale) in enumerate(pairs):
        counts[:256] = _literals(scale, _MANY * (1000 - share) // 1000)
        counts[256] = 1
        counts[257:SYMBOLS] = np.maximum(1, np.array(_LENGTHS) * _MANY * share // 1_000_000)
        code(counts[:SYMBOLS], 15, symbols[i], scratch)
        code(np.array(_DISTANCES, np.int32), 15, distances[i], scratch)
        row = start + i * headers.strides[0]
        to, bits, held = write_header(row, np.uint64(0), 0, symbols[i], distances[i], scratch)
        headers[i].view(np.uint8)[to - row] = bits
        header_bits[i] = 8 * (to - row) + held
    if sys.byteorder == "big":
        headers.byteswap(inplace=True)
    low, high = np.array(_SHARES[:-1]), np.array(_SHARES[1:])
    bounds = ((low + high) // 2).astype(np.int32)
    fixed_symbols = _numbered([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8)[:SYMBOLS]
    fixed_distances = _numbered([5] * 32)[:DISTANCES]
    return Presets(symbols, distances, headers, header_bits, bounds, fixed_symbols, fixed_distances)


def _literals(scale: int, total: int) -> Ints:
    """(256,): of about so many bytes how many have each value, at least one."""
    weights = [_WHOLE]
    for _ in range(128):
        weights.append(weights[-1] * scale // (scale + 1))
    sizes = np.minimum(np.arange(256), 256 - np.arange(256))
    chances = np.array(weights, np.int64)[sizes]
    even = total // 50  # one byte in fifty may be anything
    counts = chances * (total - even) // chances.sum() + even // 256
    least_one: Ints = np.maximum(1, counts).astype(np.int32)
    return least_one


def _numbered(lengths: list[int]) -> Ints:
    """Entries as ``huffman.code`` makes them, of these lengths."""
    entries: list[tuple[int, int, int]] = []
    following = 0
    for length in sorted(set(lengths)):
        following <<= length - (entries[-1][1] if entries else length)
        for symbol in (s for s, its in enumerate(lengths) if its == length):
            entries.append((symbol, length, int(f"{following:0{length}b}"[::-1], 2)))
            following += 1
    return np.array([bits << LENGTH | length for _, length, bits in sorted(entries)], np.int32)
