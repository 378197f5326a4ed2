"""Adler-32 and CRC-32 of memory, as compiled loops."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.words import Int, load64
from un0.jit import compiled

_BASE = 65_521
_CHUNK = 2048  # bytes whose weighted sum fits 32 bits
_POLYNOMIAL = 0xEDB88320


def _tables(count: int) -> NDArray[np.uint32]:
    """(count, 256): what a byte does to the remainder when so many bytes follow it."""
    table = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = np.where(table & 1, table >> 1 ^ _POLYNOMIAL, table >> 1).astype(np.uint32)
    tables = [table]
    for _ in range(count - 1):
        tables.append(tables[-1] >> 8 ^ table[tables[-1] & 255])
    return np.stack(tables)


_TABLES = _tables(8)
_BYTE = np.uint64(255)


@compiled
def adler32(data: NDArray[np.uint8]) -> Int:
    low, high = np.int64(1), np.int64(0)
    for start in range(0, len(data), _CHUNK):
        part = data[start : start + _CHUNK]
        plain, weighted = np.uint32(0), np.uint32(0)
        for i in range(len(part)):
            value = np.uint32(part[i])
            plain = np.uint32(plain + value)
            weighted = np.uint32(weighted + np.uint32(value * np.uint32(i)))
        size = len(part)
        high = (high + size * low + size * np.int64(plain) - np.int64(weighted)) % _BASE
        low = (low + np.int64(plain)) % _BASE
    return high << 16 | low


@compiled
def crc32(address: Int, size: Int) -> Int:
    """The CRC of so many bytes; 8 more are read."""
    value = np.uint64(0xFFFFFFFF)
    whole = size & ~7
    for at in range(address, address + whole, 8):
        word = load64(at) ^ value
        value = np.uint64(0)
        for i in range(8):
            value ^= np.uint64(_TABLES[7 - i, (word >> np.uint64(8 * i)) & _BYTE])
    for at in range(address + whole, address + size):
        value = value >> np.uint64(8) ^ np.uint64(_TABLES[0, (value ^ load64(at)) & _BYTE])
    return np.int64(value ^ np.uint64(0xFFFFFFFF))
