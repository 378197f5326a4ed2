"""Pages of Parquet columns: levels, encodings and statistics. Pure; no Python object per row."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.encoded import LENGTH_BYTES, Encoded
from cluster.pipeline.thrift import varint, zigzag

Bytes = NDArray[np.uint8]
_BLOCK = 128  # numbers in a block of DELTA_BINARY_PACKED, in four parts


class Encoding(IntEnum):
    """Numbers of the Parquet format."""

    PLAIN = 0
    RLE = 3
    DELTA_BINARY_PACKED = 5
    RLE_DICTIONARY = 8


@dataclass(frozen=True)
class Page:
    """A page before compression. buffers: its bytes, in order, not joined."""

    values: int
    encoding: Encoding
    buffers: tuple[bytes | memoryview, ...]


@dataclass(frozen=True)
class Statistics:
    """Of a column in a row group. least, greatest: in PLAIN without a length, None if unknown."""

    nulls: int | None = None
    least: bytes | None = None
    greatest: bytes | None = None


@dataclass(frozen=True)
class Column:
    """One column of a row group."""

    pages: tuple[Page, ...]
    statistics: Statistics = Statistics()
    dictionary: Page | None = None


@lru_cache(256)  # row groups of a job, and its shards, have the same
def constant(value: bytes | None, rows: int, *, text: bool) -> Column:
    """One value in every row, or null; costs the same whatever the rows.

    value: in PLAIN without a length. text: of a BYTE_ARRAY column.
    """
    if value is None:
        page = Page(rows, Encoding.PLAIN, (_levels(rows, 0, 1),))
        return Column((page,), Statistics(rows))
    body = _levels(rows, 1, 1) + b"\x01" + _run(rows, 0)
    return Column(
        (Page(rows, Encoding.RLE_DICTIONARY, (body,)),),
        Statistics(0, value, value),
        _dictionary([value], text),
    )


def chosen(values: Sequence[bytes], picks: NDArray[np.int64], *, text: bool) -> Column:
    """Rows that are picked from a few values, which ascend; -1 picks null."""
    rows = len(picks)
    present = picks >= 0
    nulls = rows - int(np.count_nonzero(present))
    if nulls == rows:
        return constant(None, rows, text=text)
    if nulls:
        levels = levels_of(present)
        picks = picks[present]
    else:
        levels = _levels(rows, 1, 1)
    low, high = int(picks.min()), int(picks.max())
    width = max(1, (len(values) - 1).bit_length())
    body = levels + bytes([width])
    body += _run(len(picks), low, width) if low == high else _packed(picks, width)
    return Column(
        (Page(rows, Encoding.RLE_DICTIONARY, (body,)),),
        Statistics(nulls, values[low], values[high]),
        _dictionary(values, text),
    )


def sequence(start: int, stop: int) -> Column:
    """The numbers start..stop-1, of 64 bits, as differences: all are 1, which takes no bits."""
    rows = stop - start
    head = varint(_BLOCK) + varint(4) + varint(rows) + zigzag(start)
    body = head + (zigzag(1) + bytes(4)) * -(-(rows - 1) // _BLOCK)
    page = Page(rows, Encoding.DELTA_BINARY_PACKED, (_levels(rows, 1, 1), body))
    return Column((page,), Statistics(0, struct.pack("<q", start), struct.pack("<q", stop - 1)))


def texts(blocks: Sequence[Bytes], *, level: int = 1) -> Column:
    """Strings, in blocks (rows, LENGTH_BYTES + length) of one length each, ascending within a
    block. The lengths are written here, in place.

    level: of definition, of a value that is there.
    """
    rows = sum(map(len, blocks))
    for block in blocks:
        length = struct.pack("<I", block.shape[1] - LENGTH_BYTES)
        block[:, :LENGTH_BYTES] = np.frombuffer(length, np.uint8)
    least = min(block[0, LENGTH_BYTES:].tobytes() for block in blocks)
    greatest = max(block[-1, LENGTH_BYTES:].tobytes() for block in blocks)
    buffers: list[bytes | memoryview] = [_levels(rows, level, level)]
    buffers += [block.reshape(-1).data for block in blocks]
    page = Page(rows, Encoding.PLAIN, tuple(buffers))
    return Column((page,), Statistics(0, least, greatest))


def files(parts: Sequence[Encoded], start: int, stop: int, page_rows: int) -> Column:
    """The image files start..stop-1 of the parts, so many to a page: slices, nothing is copied.

    They have no statistics, and level 2: they are there, in a struct that is there.
    """
    pages = []
    for first in range(start, stop, page_rows):
        last = min(first + page_rows, stop)
        head = _levels(last - first, 2, 2)
        pages.append(Page(last - first, Encoding.PLAIN, (head, *_slices(parts, first, last))))
    return Column(tuple(pages))


def _slices(parts: Sequence[Encoded], start: int, stop: int) -> list[memoryview]:
    found, offset = [], 0
    for part in parts:
        first, last = max(start - offset, 0), min(stop - offset, len(part))
        if first < last:
            found.append(part.data[part.starts[first] : part.starts[last]].data)
        offset += len(part)
    return found


def _dictionary(values: Sequence[bytes], text: bool) -> Page:
    framed = [struct.pack("<I", len(value)) + value if text else value for value in values]
    return Page(len(values), Encoding.PLAIN, (b"".join(framed),))


def levels_of(present: NDArray[np.bool_]) -> bytes:
    """Definition levels of a column that may be null."""
    if present.all():
        return _levels(len(present), 1, 1)
    return _prefixed(_packed(present.astype(np.int64), 1))


def _levels(rows: int, level: int, top: int) -> bytes:
    """Definition levels that are all the same; top: the highest that the column knows."""
    return _prefixed(_run(rows, level, top.bit_length()))


def _prefixed(data: bytes) -> bytes:
    return struct.pack("<I", len(data)) + data


def _run(count: int, value: int, width: int = 1) -> bytes:
    """One run of RLE: count times the value, of so many bits."""
    return varint(count << 1) + value.to_bytes(-(-width // 8), "little")


def _packed(values: NDArray[np.int64], width: int) -> bytes:
    """One run of bit-packed values, of so many bits each, the lowest first."""
    groups = -(-len(values) // 8)
    padded = np.zeros(8 * groups, np.int64)
    padded[: len(values)] = values
    bits = (padded[:, None] >> np.arange(width)) & 1
    return varint(groups << 1 | 1) + np.packbits(bits.astype(np.uint8), bitorder="little").tobytes()
