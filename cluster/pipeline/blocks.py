"""Blocks of a DEFLATE stream (RFC 1951) of tokens, as compiled loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.headers import (
    DISTANCES,
    LENGTH_MASK,
    SCRATCH,
    SYMBOLS,
    Written,
    flush,
    write_header,
)
from cluster.pipeline.huffman import LENGTH, MOST, code, logarithm
from cluster.pipeline.matches import (
    DISTANCE_BITS,
    MATCH,
    SINGLE,
    distance_code,
    distance_codes,
    length_codes,
)
from cluster.pipeline.presets import Presets
from cluster.pipeline.words import Int, load32, load64, store64
from un0.jit import compiled

MOST_BYTES = 65_535  # of pixels in a block: what a stored one can hold
ROOM = 512  # bytes written beyond a block's end, or for one in vain, at most
BLOCK_SCRATCH = SCRATCH + 2 * MOST

Ints = NDArray[np.int32]

_LIMIT = np.int64(15)
_FIXED, _DYNAMIC = 1 << 1, 2 << 1  # types of block, after the bit that says whether it is last
_LENGTH_CODE, _FIRST_LENGTH, _LENGTH_EXTRA = length_codes()
_, _FIRST_DISTANCE, _DISTANCE_EXTRA = distance_codes()
# A code of its own is made where it promises to save one part in so many; its description is long
_WORTH = 8
_DESCRIPTION = 8 * 70  # bits


@compiled
def write_block(
    to: Int,
    bits: Int,
    held: Int,
    last: Int,
    tokens: tuple[Int, Int],
    source: tuple[Int, Int],
    counts: Ints,
    presets: Presets,
    scratch: Ints,
) -> Written:
    """Write one block in the cheapest way; ``ROOM`` bytes behind it are overwritten.

    to, bits, held: where the stream stands. last: 1 if it ends here, else 0. tokens, source:
    addresses from and to, of the tokens and of the bytes they stand for. counts: of the tokens, as
    ``tokenize`` leaves them. scratch: (BLOCK_SCRATCH,).
    """
    used, near = counts[0, :SYMBOLS], counts[3, :DISTANCES]
    extra = _dot(used[257:], _LENGTH_EXTRA) + _dot(near, _DISTANCE_EXTRA)
    fixed = _cost(used, presets.fixed_symbols) + _cost(near, presets.fixed_distances)
    best, preset = _choose(used, near, presets)
    own = _entropy(used) + _entropy(near) + _DESCRIPTION
    stored = 8 * (source[1] - source[0]) + 32 + (-(held + 3) % 8) - extra
    final = np.uint64(last) << np.uint64(held)
    if fixed <= min(preset, own, stored):
        bits |= final | np.uint64(_FIXED) << np.uint64(held)
        symbols, distances = presets.fixed_symbols, presets.fixed_distances
        return _write_tokens(to, bits, held + 3, tokens, symbols, distances)
    if own + own // _WORTH < min(preset, stored):
        symbols, distances = scratch[:SYMBOLS], scratch[MOST : MOST + DISTANCES]
        rest = scratch[2 * MOST :]
        code(used, _LIMIT, symbols, rest)
        code(near, _LIMIT, distances, rest)
        if _cost(used, symbols) + _cost(near, distances) < stored:
            bits |= final | np.uint64(_DYNAMIC) << np.uint64(held)
            to, bits, held = write_header(to, bits, held + 3, symbols, distances, rest)
            return _write_tokens(to, bits, held, tokens, symbols, distances)
    if stored <= preset:
        return _store(to, bits, held, last, source)
    bits |= final | np.uint64(_DYNAMIC) << np.uint64(held)
    held += 3
    size = np.int64(presets.header_bits[best])
    for i in range((size + 31) >> 5):
        bits |= np.uint64(presets.headers[best, i]) << np.uint64(held)
        to, bits, held = flush(to, bits, held + min(32, size - 32 * i))
    symbols, distances = presets.symbols[best], presets.distances[best]
    return _write_tokens(to, bits, held, tokens, symbols, distances)


@compiled
def _choose(used: Ints, near: Ints, presets: Presets) -> tuple[Int, Int]:
    """The preset that suits these counts best, and the bits of symbols and description."""
    matches, symbols = np.int64(0), np.int64(0)
    for count in near:
        matches += count
    for count in used:
        symbols += count
    group = 0
    while group < len(presets.bounds) and 1000 * matches > presets.bounds[group] * symbols:
        group += 1
    scales = len(presets.symbols) // (len(presets.bounds) + 1)
    best, least = 0, np.int64(1) << 40
    for i in range(group * scales, (group + 1) * scales):
        bits = _cost(used, presets.symbols[i]) + _cost(near, presets.distances[i])
        bits += presets.header_bits[i]
        if bits < least:
            best, least = i, bits
    return best, least


@compiled
def _cost(counts: Ints, entries: Ints) -> Int:
    """Bits of these symbols."""
    bits = np.int32(0)
    for i in range(len(entries)):
        bits = np.int32(bits + np.int32(counts[i] * np.int32(entries[i] & np.int32(31))))
    return np.int64(bits)


@compiled
def _dot(a: Ints, b: Ints) -> Int:
    total = np.int64(0)
    for i in range(len(b)):
        total += a[i] * b[i]
    return total


@compiled
def _entropy(counts: Ints) -> Int:
    """Bits of these symbols in a code of their own, but for what its whole bits waste."""
    total, bits = np.int64(0), np.int64(0)
    for count in counts:
        total += count
        bits -= count * logarithm(max(1, count))
    return (bits + total * logarithm(max(1, total))) >> 5


@compiled
def _store(to: Int, bits: Int, held: Int, last: Int, source: tuple[Int, Int]) -> Written:
    bits |= np.uint64(last) << np.uint64(held)
    to, bits, held = flush(to, bits, held + 3)
    if held > 0:
        to += 1
    size = source[1] - source[0]
    store64(to, np.uint64(size | (size ^ 0xFFFF) << 16))
    to += 4
    for i in range(0, size, 8):
        store64(to + i, load64(source[0] + i))
    return to + size, np.uint64(0), np.int64(0)


@compiled
def _write_tokens(
    to: Int, bits: Int, held: Int, tokens: tuple[Int, Int], symbols: Ints, distances: Ints
) -> Written:
    for at in range(tokens[0], tokens[1], 4):
        to, bits, held = flush(to, bits, held)
        token = load32(at)
        if token < np.uint64(SINGLE):
            for shift in range(0, 24, 8):
                entry = np.int64(symbols[(token >> np.uint64(shift)) & np.uint64(255)])
                bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
                held += entry & LENGTH_MASK
        elif token < np.uint64(MATCH):
            entry = np.int64(symbols[token & np.uint64(255)])
            bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
            held += entry & LENGTH_MASK
        else:
            length = np.int64((token >> np.uint64(DISTANCE_BITS)) & np.uint64(255))
            number = np.uint64(_LENGTH_CODE[np.uint64(length)])
            entry = np.int64(symbols[np.uint64(257) + number])
            bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
            held += entry & LENGTH_MASK
            bits |= np.uint64(length + 3 - _FIRST_LENGTH[number]) << np.uint64(held)
            held += _LENGTH_EXTRA[number]
            distance = np.int64(token & np.uint64((1 << DISTANCE_BITS) - 1)) + 1
            number = np.uint64(distance_code(distance))
            entry = np.int64(distances[number])
            bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
            held += entry & LENGTH_MASK
            bits |= np.uint64(distance - _FIRST_DISTANCE[number]) << np.uint64(held)
            held += _DISTANCE_EXTRA[number]
    to, bits, held = flush(to, bits, held)
    entry = np.int64(symbols[256])
    bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
    return flush(to, bits, held + (entry & LENGTH_MASK))
