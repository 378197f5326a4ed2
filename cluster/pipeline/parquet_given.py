"""Parquet columns of values that users gave, as Arrow holds them. No Python object per row."""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.pipeline.encoded import LENGTH_BYTES
from cluster.pipeline.parquet_pages import Column, Encoding, Page, Statistics, levels_of

_PAGE_BYTES = 1 << 20
_PAGE_ROWS = 1 << 16


def given(values: pa.ChunkedArray) -> Column:
    """A column of these values, in the encoding PLAIN: of a number, bool, time, text or bytes.

    Pages hold about 1 MiB, and at least one row. Statistics count nulls only.
    """
    whole = values.combine_chunks()
    array = pa.concat_arrays(whole.chunks) if isinstance(whole, pa.ChunkedArray) else whole
    pages = []
    for first, last in _pages(array):
        part = array[first:last]
        present = part.is_valid().to_numpy(zero_copy_only=False)
        body = _plain(part.drop_null() if part.null_count else part)
        pages.append(Page(last - first, Encoding.PLAIN, (levels_of(present), body)))
    return Column(tuple(pages), Statistics(array.null_count))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind))


def _pages(array: pa.Array) -> Iterator[tuple[int, int]]:
    if not _is_text(array.type):
        for first in range(0, len(array), _PAGE_ROWS):
            yield first, min(first + _PAGE_ROWS, len(array))
        return
    lengths = pc.fill_null(pc.binary_length(array), 0).to_numpy().astype(np.int64)
    ends = np.cumsum(lengths + LENGTH_BYTES)
    first, before = 0, 0
    while first < len(array):
        fit = int(np.searchsorted(ends, before + _PAGE_BYTES, side="right"))
        last = min(max(fit, first + 1), first + _PAGE_ROWS, len(array))
        yield first, last
        first, before = last, int(ends[last - 1])


def _plain(array: pa.Array) -> bytes:
    """Values without nulls, one after the other."""
    kind = array.type
    if _is_text(kind):
        return _texts(array)
    if pa.types.is_boolean(kind):
        bits = array.to_numpy(zero_copy_only=False).astype(np.uint8)
        return np.packbits(bits, bitorder="little").tobytes()
    if pa.types.is_temporal(kind):
        array = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    numbers = array.to_numpy()
    if numbers.dtype.kind in "iu" and numbers.itemsize < 4:
        numbers = numbers.astype(np.int32)  # the least that Parquet has
    data: bytes = numbers.astype(numbers.dtype.newbyteorder("<"), copy=False).tobytes()
    return data


def _texts(array: pa.Array) -> bytes:
    """Each with its length in front."""
    if not len(array):
        return b""
    _, offsets, data = array.buffers()
    at = np.frombuffer(offsets, np.int32)[array.offset :][: len(array) + 1].astype(np.int64)
    lengths = np.diff(at)
    heads = (at[:-1] - at[0] + LENGTH_BYTES * np.arange(len(array)))[:, None]
    heads = heads + np.arange(LENGTH_BYTES)
    out = np.empty(int(at[-1] - at[0]) + LENGTH_BYTES * len(array), np.uint8)
    of_text = np.ones(len(out), np.bool_)
    of_text[heads] = False
    out[heads] = lengths.astype("<u4").view(np.uint8).reshape(-1, struct.calcsize("<I"))
    if data is not None:
        out[of_text] = np.frombuffer(data, np.uint8)[at[0] : at[-1]]
    return out.tobytes()
