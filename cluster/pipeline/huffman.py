"""Prefix codes as DEFLATE wants them (RFC 1951, 3.2.2), as compiled loops.

Not Huffman's, for which symbols are sorted and merged: each symbol gets a length near the logarithm
of its share, rounded so that the code is whole. Files are 0.2 % larger at most.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.words import Int, reversed_bits
from un0.jit import compiled

MOST = 288  # symbols of an alphabet
LENGTH = 5  # the low bits of a code's entry hold its length, the others the code

Ints = NDArray[np.int32]

_BIT = 5  # logarithms are in units of 2**-_BIT bits
_EXACT = 512  # counts below have a logarithm of their own
_LOG = np.round(np.log2(np.maximum(np.arange(_EXACT), 1)) * (1 << _BIT)).astype(np.int32)


@compiled
def code(counts: Ints, limit: Int, entries: Ints, scratch: Ints) -> None:
    """entries (n,): code << LENGTH | length of every symbol that occurs, first bit lowest; else 0.

    counts: (n,), how often a symbol occurs, below 2**17, n at most MOST; where fewer than two
    occur, symbols of no use are added, as some decoders want whole codes. limit: bits of the
    longest code, more than log2(n). scratch: (3 * MOST,).
    """
    symbols, bits, following = scratch[:MOST], scratch[MOST : 2 * MOST], scratch[2 * MOST :][:16]
    used, total = 0, 0
    for symbol in range(len(counts)):
        entries[symbol] = 0
        symbols[used] = symbol
        bits[used] = counts[symbol]
        used += int(counts[symbol] > 0)
        total += counts[symbol]
    if used < 2:
        other = symbols[0] if used == 1 else 0
        symbols[0], symbols[1] = (0, other) if other > 0 else (0, 1)
        bits[0] = bits[1] = total = used = 2
    whole = logarithm(total)
    for i in range(used):
        bits[i] = whole - logarithm(bits[i])
    _fit(bits[:used], limit)
    following[:] = 0
    for i in range(used):
        following[bits[i]] += 1
    begin = 0
    for length in range(1, 16):
        here = following[length]
        following[length] = begin
        begin = (begin + here) << 1
    for i in range(used):
        size = np.int64(bits[i])
        value = reversed_bits(np.uint64(following[size])) >> np.uint64(64 - size)
        following[size] += 1
        entries[symbols[i]] = np.int64(value) << LENGTH | size


@compiled
def logarithm(count: Int) -> Int:
    """Of 2, in parts of a bit: 32 to the bit."""
    halved = 0
    while count >= _EXACT:
        count >>= 1
        halved += 1 << _BIT
    return halved + _LOG[count]


@compiled
def _fit(bits: Ints, limit: Int) -> None:
    """Round logarithms to lengths of 1 to ``limit`` whose code is whole."""
    low, high = 0, 2 << _BIT  # the least that is to be added lies between
    while low < high:
        middle = (low + high) >> 1
        if _taken(bits, middle, limit) <= 1 << limit:
            high = middle
        else:
            low = middle + 1
    spare = (1 << limit) - _taken(bits, low, limit)
    for i in range(len(bits)):
        length = _rounded(bits[i], low, limit)
        bits[i] = bits[i] << LENGTH | length
    while spare > 0:  # the code of the longest symbol can always be halved
        low -= 1
        for i in range(len(bits)):
            length = bits[i] & 31
            gain = 1 << (limit - length)
            if gain <= spare and _rounded(bits[i] >> LENGTH, low, limit) < length:
                bits[i] -= 1
                spare -= gain
    for i in range(len(bits)):
        bits[i] &= 31


@compiled
def _rounded(bits: Int, more: Int, limit: Int) -> Int:
    return min(max((bits + more) >> _BIT, 1), limit)


@compiled
def _taken(bits: Ints, more: Int, limit: Int) -> Int:
    """Of a code with room for 2**limit of the longest, how many these symbols take."""
    taken = 0
    for i in range(len(bits)):
        taken += 1 << (limit - _rounded(bits[i], more, limit))
    return taken
