"""Blocks of a DEFLATE stream (RFC 1951) of tokens, as compiled loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.huffman import LENGTH, MOST, code
from cluster.pipeline.matches import (
    DISTANCE_BITS,
    MATCH,
    SINGLE,
    distance_code,
    distance_codes,
    length_codes,
)
from cluster.pipeline.words import load32, load64, store64
from un0.jit import compiled

MOST_BYTES = 65_535  # of pixels in a block: what a stored one can hold
ROOM = 64  # bytes written beyond a block's end, at most
SCRATCH = 9 * MOST

Ints = NDArray[np.int32]
Written = tuple[int, int, int]  # address, bits that are not written yet, how many (below 8)

_SYMBOLS, _DISTANCES, _LENGTHS = 286, 30, 19
_LIMIT, _LENGTHS_LIMIT = 15, 7
_STORED, _FIXED, _DYNAMIC = 0, 1, 2
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.int32)
_LENGTH_CODE, _FIRST_LENGTH, _LENGTH_EXTRA = length_codes()
_, _FIRST_DISTANCE, _DISTANCE_EXTRA = distance_codes()
_MASK = np.int64((1 << LENGTH) - 1)


def _fixed(lengths: list[int]) -> Ints:
    """Entries as ``huffman.code`` makes them, of these lengths."""
    entries, following = [], 0
    for length in sorted(set(lengths)):
        following <<= length - (entries[-1][1] if entries else length)
        for symbol in (s for s, its in enumerate(lengths) if its == length):
            entries.append((symbol, length, int(f"{following:0{length}b}"[::-1], 2)))
            following += 1
    return np.array([bits << LENGTH | length for _, length, bits in sorted(entries)], np.int32)


_FIXED_SYMBOLS = _fixed([8] * 144 + [9] * 112 + [7] * 24 + [8] * 8)[:_SYMBOLS]
_FIXED_DISTANCES = _fixed([5] * 32)[:_DISTANCES]


@compiled
def write_block(
    to: int,
    bits: np.uint64,
    held: int,
    last: int,
    tokens: tuple[int, int],
    source: tuple[int, int],
    counts: Ints,
    scratch: Ints,
) -> Written:
    """Write one block in the cheapest way; ``ROOM`` bytes behind it are overwritten.

    to, bits, held: where the stream stands. last: 1 if it ends here, else 0. tokens, source:
    addresses from and to, of the tokens and of the bytes they stand for. counts: of the tokens, as
    ``tokenize`` leaves them. scratch: (SCRATCH,).
    """
    symbols, distances = scratch[:_SYMBOLS], scratch[MOST : MOST + _DISTANCES]
    lengths, header_counts = scratch[MOST + 64 :][:_LENGTHS], scratch[MOST + 128 :][:_LENGTHS]
    header, rest = scratch[2 * MOST : 4 * MOST], scratch[5 * MOST :]
    code(counts[0, :_SYMBOLS], _LIMIT, symbols, rest)
    code(counts[3, :_DISTANCES], _LIMIT, distances, rest)
    used, used_distances = _used(symbols), _used(distances)
    items = _describe(symbols, used, distances, used_distances, header, header_counts)
    code(header_counts, _LENGTHS_LIMIT, lengths, rest)
    described = _LENGTHS
    while described > 4 and lengths[_ORDER[described - 1]] == 0:
        described -= 1
    extra = _dot(counts[0, 257:], _LENGTH_EXTRA) + _dot(counts[3], _DISTANCE_EXTRA)
    dynamic = 14 + 3 * described + extra + _cost(counts[0], symbols) + _cost(counts[3], distances)
    dynamic += _cost(header_counts, lengths)
    dynamic += 2 * header_counts[16] + 3 * header_counts[17] + 7 * header_counts[18]
    fixed = extra + _cost(counts[0], _FIXED_SYMBOLS) + _cost(counts[3], _FIXED_DISTANCES)
    stored = 8 * (source[1] - source[0]) + 32 + (-(held + 3) % 8)
    if stored < min(fixed, dynamic):
        return _store(to, bits, held, last, source)
    kind = _FIXED if fixed <= dynamic else _DYNAMIC
    bits |= np.uint64(last | kind << 1) << np.uint64(held)
    held += 3
    if kind == _FIXED:
        symbols[:], distances[:] = _FIXED_SYMBOLS, _FIXED_DISTANCES
    else:
        bits |= np.uint64(used - 257 | (used_distances - 1) << 5 | (described - 4) << 10) << np.uint64(held)
        held += 14
        for i in range(described):
            to, bits, held = _flush(to, bits, held)
            bits |= np.uint64(lengths[_ORDER[i]] & _MASK) << np.uint64(held)
            held += 3
        for i in range(items):
            to, bits, held = _flush(to, bits, held)
            entry = np.int64(lengths[header[i] & 31])
            bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
            held += entry & _MASK
            if header[i] & 31 >= 16:
                bits |= np.uint64(header[i] >> 8) << np.uint64(held)
                held += 2 if header[i] & 31 == 16 else 3 if header[i] & 31 == 17 else 7
    return _write_tokens(to, bits, held, tokens, symbols, distances)


@compiled
def _flush(to: int, bits: np.uint64, held: int) -> Written:
    """Write whole bytes of up to 63 bits."""
    store64(to, bits)
    whole = held & ~7
    return to + (held >> 3), bits >> np.uint64(whole), held - whole


@compiled
def _used(entries: Ints) -> int:
    used = len(entries)
    while entries[used - 1] == 0:
        used -= 1
    return used


@compiled
def _cost(counts: Ints, entries: Ints) -> int:
    """Bits of these symbols."""
    bits = np.int32(0)
    for i in range(len(entries)):
        bits += counts[i] * (entries[i] & np.int32(31))
    return np.int64(bits)


@compiled
def _dot(a: Ints, b: Ints) -> int:
    total = np.int64(0)
    for i in range(len(b)):
        total += a[i] * b[i]
    return total


@compiled
def _describe(
    symbols: Ints, used: int, distances: Ints, used_distances: int, header: Ints, counts: Ints
) -> int:
    """Both codes' lengths as symbol | extra << 8 with runs shortened; returns how many.

    counts: (19,), becomes how often each symbol occurs.
    """
    counts[:] = 0
    items = 0
    i, total = 0, used + used_distances
    while i < total:
        length = (symbols[i] if i < used else distances[i - used]) & _MASK
        run = 1
        while i + run < total:
            j = i + run
            if (symbols[j] if j < used else distances[j - used]) & _MASK != length:
                break
            run += 1
        i += run
        if length > 0:
            header[items] = length
            counts[length] += 1
            items += 1
            run -= 1
        while run >= 3:
            if length > 0:
                symbol, some, first = 16, min(run, 6), 3
            elif run <= 10:
                symbol, some, first = 17, run, 3
            else:
                symbol, some, first = 18, min(run, 138), 11
            header[items] = symbol | (some - first) << 8
            counts[symbol] += 1
            items += 1
            run -= some
        for _ in range(run):
            header[items] = length
            counts[length] += 1
            items += 1
    return items


@compiled
def _store(to: int, bits: np.uint64, held: int, last: int, source: tuple[int, int]) -> Written:
    bits |= np.uint64(last) << np.uint64(held)
    to, bits, held = _flush(to, bits, held + 3)
    if held > 0:
        to += 1
    size = source[1] - source[0]
    store64(to, np.uint64(size | (size ^ 0xFFFF) << 16))
    to += 4
    for i in range(0, size, 8):
        store64(to + i, load64(source[0] + i))
    return to + size, np.uint64(0), 0


@compiled
def _write_tokens(
    to: int, bits: np.uint64, held: int, tokens: tuple[int, int], symbols: Ints, distances: Ints
) -> Written:
    for at in range(tokens[0], tokens[1], 4):
        to, bits, held = _flush(to, bits, held)
        token = load32(at)
        if token < np.uint64(SINGLE):
            for shift in range(0, 24, 8):
                entry = np.int64(symbols[(token >> np.uint64(shift)) & np.uint64(255)])
                bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
                held += entry & _MASK
        elif token < np.uint64(MATCH):
            entry = np.int64(symbols[token & np.uint64(255)])
            bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
            held += entry & _MASK
        else:
            length = np.int64((token >> np.uint64(DISTANCE_BITS)) & np.uint64(255))
            number = np.uint64(_LENGTH_CODE[np.uint64(length)])
            entry = np.int64(symbols[np.uint64(257) + number])
            bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
            held += entry & _MASK
            bits |= np.uint64(length + 3 - _FIRST_LENGTH[number]) << np.uint64(held)
            held += _LENGTH_EXTRA[number]
            distance = np.int64(token & np.uint64((1 << DISTANCE_BITS) - 1)) + 1
            number = np.uint64(distance_code(distance))
            entry = np.int64(distances[number])
            bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
            held += entry & _MASK
            bits |= np.uint64(distance - _FIRST_DISTANCE[number]) << np.uint64(held)
            held += _DISTANCE_EXTRA[number]
    to, bits, held = _flush(to, bits, held)
    entry = np.int64(symbols[256])
    bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
    return _flush(to, bits, held + (entry & _MASK))
