"""What DEFLATE says before a block of its code (RFC 1951, 3.2.7), and bits in their order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.huffman import LENGTH, MOST, code
from cluster.pipeline.words import Int, store64
from un0.jit import compiled

SYMBOLS, DISTANCES = 286, 30
SCRATCH = 7 * MOST
LENGTH_MASK = np.int64((1 << LENGTH) - 1)

Ints = NDArray[np.int32]
Written = Any  # address, bits not written yet, how many: below 8

_ITEMS = 19
_LIMIT = np.int64(7)
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.int32)


@compiled
def write_header(
    to: Int, bits: Int, held: Int, symbols: Ints, distances: Ints, scratch: Ints
) -> Written:
    """Write the lengths of two codes. scratch: (SCRATCH,)."""
    lengths, counts = scratch[:_ITEMS], scratch[MOST:][:_ITEMS]
    header, rest = scratch[2 * MOST : 4 * MOST], scratch[4 * MOST :]
    used, used_distances = _used(symbols), _used(distances)
    items = _describe(symbols, used, distances, used_distances, header, counts)
    code(counts, _LIMIT, lengths, rest)
    described = _ITEMS
    while described > 4 and lengths[_ORDER[described - 1]] == 0:
        described -= 1
    word = used - 257 | (used_distances - 1) << 5 | (described - 4) << 10
    bits |= np.uint64(word) << np.uint64(held)
    held += 14
    for i in range(described):
        to, bits, held = flush(to, bits, held)
        bits |= np.uint64(lengths[_ORDER[i]] & LENGTH_MASK) << np.uint64(held)
        held += 3
    for i in range(items):
        to, bits, held = flush(to, bits, held)
        item = header[i] & 31
        entry = np.int64(lengths[item])
        bits |= np.uint64(entry >> LENGTH) << np.uint64(held)
        held += entry & LENGTH_MASK
        if item >= 16:
            bits |= np.uint64(header[i] >> LENGTH) << np.uint64(held)
            held += 2 if item == 16 else 3 if item == 17 else 7
    return flush(to, bits, held)


@compiled
def flush(to: Int, bits: Int, held: Int) -> Written:
    """Write whole bytes of up to 63 bits; 8 bytes are overwritten."""
    store64(to, bits)
    whole = held & ~7
    return to + (held >> 3), bits >> np.uint64(whole), held - whole


@compiled
def _used(entries: Ints) -> Int:
    used = len(entries)
    while entries[used - 1] == 0:
        used -= 1
    return used


@compiled
def _describe(
    symbols: Ints, used: Int, distances: Ints, used_distances: Int, header: Ints, counts: Ints
) -> Int:
    """Both codes' lengths as symbol | extra << LENGTH with runs shortened; returns how many.

    counts: (19,), becomes how often each symbol occurs.
    """
    counts[:] = 0
    items = 0
    i, total = 0, used + used_distances
    while i < total:
        length = (symbols[i] if i < used else distances[i - used]) & LENGTH_MASK
        run = 1
        while i + run < total:
            j = i + run
            if (symbols[j] if j < used else distances[j - used]) & LENGTH_MASK != length:
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
            header[items] = symbol | (some - first) << LENGTH
            counts[symbol] += 1
            items += 1
            run -= some
        for _ in range(run):
            header[items] = length
            counts[length] += 1
            items += 1
    return items
