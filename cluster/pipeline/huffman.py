"""Huffman codes as DEFLATE wants them (RFC 1951, 3.2.2), as compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.words import reversed_bits
from un0.jit import compiled

MOST = 288  # symbols of an alphabet
LENGTH = 5  # the low bits of a code's entry hold its length, the others the code

Ints = NDArray[np.int32]


@compiled
def code(counts: Ints, limit: int, entries: Ints, scratch: Ints) -> None:
    """entries (n,): code << LENGTH | length of every symbol that occurs, first bit lowest; else 0.

    counts: (n,), how often a symbol occurs, below 2**17, n at most MOST; where fewer than two
    occur, symbols of no use are added, as some decoders want whole codes. limit: bits of the
    longest code, at least log2(n). scratch: (4 * MOST,).
    """
    keys, other = scratch[:MOST], scratch[MOST : 2 * MOST]
    symbols, bins = scratch[2 * MOST : 3 * MOST], scratch[3 * MOST :]
    used = 0
    for symbol in range(len(counts)):
        entries[symbol] = 0
        if counts[symbol] > 0:
            keys[used], symbols[used] = counts[symbol], symbol
            used += 1
    if used < 2:
        entries[0] = entries[1] = 1
        if used == 1 and symbols[0] > 1:
            entries[1] = 0
            entries[symbols[0]] = 1
        _number(entries, bins)
        return
    _sort(keys, symbols, other, bins, used)
    _depths(keys, used)
    lengths = bins[:32]
    lengths[:] = 0
    for i in range(used):
        lengths[min(keys[i], limit)] += 1
    _fit(lengths, limit)
    i = 0
    for length in range(limit, 0, -1):
        for _ in range(lengths[length]):
            entries[symbols[i]] = length
            i += 1
    _number(entries, bins)


@compiled
def _sort(keys: Ints, symbols: Ints, other: Ints, bins: Ints, used: int) -> None:
    """Order the first ``used`` by key, those of the same key as they stand."""
    largest = 0
    for i in range(used):
        largest = max(largest, keys[i])
    shift = 0
    while largest >> shift > 0:
        bins[:256] = 0
        for i in range(used):
            other[i] = keys[i] << 9 | symbols[i]
            bins[(keys[i] >> shift) & 255] += 1
        before = 0
        for digit in range(256):
            here = bins[digit]
            bins[digit] = before
            before += here
        for i in range(used):
            digit = (other[i] >> (9 + shift)) & 255
            to = bins[digit]
            bins[digit] = to + 1
            keys[to], symbols[to] = other[i] >> 9, other[i] & 511
        shift += 8


@compiled
def _depths(a: Ints, n: int) -> None:
    """Turn the sorted counts of n >= 2 symbols into the lengths of their codes, longest first.

    A. Moffat, J. Katajainen: In-place calculation of minimum-redundancy codes, 1995.
    """
    a[0] += a[1]
    root, leaf = 0, 2
    for free in range(1, n - 1):
        if leaf >= n or a[root] < a[leaf]:
            a[free] = a[root]
            a[root] = free
            root += 1
        else:
            a[free] = a[leaf]
            leaf += 1
        if leaf >= n or (root < free and a[root] < a[leaf]):
            a[free] += a[root]
            a[root] = free
            root += 1
        else:
            a[free] += a[leaf]
            leaf += 1
    a[n - 2] = 0
    for i in range(n - 3, -1, -1):
        a[i] = a[a[i]] + 1
    available, inner, depth, root, to = 1, 0, 0, n - 2, n - 1
    while available > 0:
        while root >= 0 and a[root] == depth:
            inner += 1
            root -= 1
        while available > inner:
            a[to] = depth
            to -= 1
            available -= 1
        available, inner, depth = 2 * inner, 0, depth + 1


@compiled
def _fit(lengths: Ints, limit: int) -> None:
    """Make a prefix code of so many codes of each length, of which the longest were cut."""
    total = 0
    for length in range(1, limit + 1):
        total += lengths[length] << (limit - length)
    while total > 1 << limit:
        lengths[limit] -= 1
        for length in range(limit - 1, 0, -1):
            if lengths[length] > 0:
                lengths[length] -= 1
                lengths[length + 1] += 2
                break
        total -= 1


@compiled
def _number(entries: Ints, bins: Ints) -> None:
    """Give codes to symbols of these lengths, in their order."""
    following = bins[:32]
    following[:] = 0
    for length in entries:
        following[length] += 1
    following[0] = 0
    begin = 0
    for length in range(1, 16):
        here = following[length]
        following[length] = begin
        begin = (begin + here) << 1
    for symbol in range(len(entries)):
        length = entries[symbol]
        if length > 0:
            value: Any = reversed_bits(np.uint64(following[length])) >> np.uint64(64 - length)
            following[length] += 1
            entries[symbol] = np.int64(value) << LENGTH | length
