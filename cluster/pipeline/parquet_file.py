"""Parquet files of images, as lists of buffers: headers, column chunks, the footer.

The format: https://github.com/apache/parquet-format. Data pages are of version 1, which all
readers know.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain

import pyarrow as pa

from cluster.pipeline.parquet_codecs import NUMBERS, compress
from cluster.pipeline.parquet_pages import Column, Encoding, Page, Statistics
from cluster.pipeline.thrift import Value, array, binary, boolean, i8, i16, i32, i64, struct
from cluster.storage.chunks import Chunks
from cluster.types import Compression

Buffers = list[bytes | memoryview]

_MAGIC = b"PAR1"
_OPTIONAL = i32(1)
_BYTE_ARRAY = 6
_EMPTY = struct({})


def _whole(bits: int, *, signed: bool = False) -> Value:
    return struct({10: struct({1: i8(bits), 2: boolean(signed)})})


_TYPES: dict[pa.DataType, tuple[int, int | None, Value | None]] = {
    # Arrow's: the physical type, the converted type of old readers, the logical type
    pa.bool_(): (0, None, None),
    pa.int8(): (1, 15, _whole(8, signed=True)),
    pa.int16(): (1, 16, _whole(16, signed=True)),
    pa.int32(): (1, None, None),
    pa.int64(): (2, None, None),
    pa.uint8(): (1, 11, _whole(8)),
    pa.uint16(): (1, 12, _whole(16)),
    pa.uint32(): (1, 13, _whole(32)),
    pa.uint64(): (2, 14, _whole(64)),
    pa.float32(): (4, None, None),
    pa.float64(): (5, None, None),
    pa.date32(): (1, 6, struct({6: _EMPTY})),
    pa.binary(): (_BYTE_ARRAY, None, None),
    pa.string(): (_BYTE_ARRAY, 0, struct({1: _EMPTY})),
}
_UNITS = {"ms": (1, 9), "us": (2, 10), "ns": (3, None)}  # of times: logical and converted type
# Java's reader trusts the statistics of texts only if it can take this apart.
_CREATED_BY = "un0-cluster version 1 (build 1)"


@dataclass(frozen=True)
class _Leaf:
    """A column of the file. name: its path with points. signed: older readers trust its limits."""

    name: str
    path: Value
    physical: Value
    signed: bool


@dataclass
class _File:
    """What has been written, and where the next byte will be."""

    buffers: Buffers = field(default_factory=lambda: [_MAGIC])
    size: int = len(_MAGIC)

    def write(self, *buffers: bytes | memoryview) -> int:
        """Appends them; returns where they begin."""
        start = self.size
        self.buffers += buffers
        self.size += sum(map(len, buffers))
        return start


def parquet_file(
    schema: pa.Schema, groups: Iterable[Mapping[str, tuple[Column, Compression]]]
) -> Chunks:
    """A file of these row groups: for every leaf of the schema, by its path with points
    (``image.bytes``), the column and how it is compressed."""
    file = _File()
    leaves = _leaves(schema)
    row_groups = []
    rows = 0
    for number, group in enumerate(groups):
        start = file.size
        columns = [_chunk(file, leaf, *group[leaf.name]) for leaf in leaves]
        count = sum(page.values for page in next(iter(group.values()))[0].pages)
        rows += count
        row_groups.append(
            struct(
                {
                    1: array([described for described, _ in columns]),
                    2: i64(sum(plain_size for _, plain_size in columns)),
                    3: i64(count),
                    5: i64(start),
                    6: i64(file.size - start),
                    7: i16(number),
                }
            )
        )
    footer = _footer(schema, rows, row_groups)
    file.write(footer, len(footer).to_bytes(4, "little"), _MAGIC)
    return Chunks(file.buffers)


def _chunk(file: _File, leaf: _Leaf, column: Column, codec: Compression) -> tuple[Value, int]:
    """Writes a column chunk; returns its description and its size before compression."""
    start = file.size
    plain_size = 0
    dictionary_at = None
    pages = [column.dictionary] if column.dictionary else []
    data_at = start
    for page, payload in _payloads([*pages, *column.pages], codec):
        is_dictionary = page is column.dictionary
        page_size = sum(map(len, page.buffers))
        size = sum(map(len, payload))
        header = _page_header(page.values, page.encoding, page_size, size, is_dictionary)
        at = file.write(header, *payload)
        plain_size += len(header) + page_size
        if is_dictionary:
            dictionary_at, data_at = at, file.size
    encodings = {Encoding.RLE, column.pages[0].encoding} | {page.encoding for page in pages}
    described = struct(
        {
            1: leaf.physical,
            2: array([i32(encoding) for encoding in sorted(encodings)]),
            3: leaf.path,
            4: i32(NUMBERS[codec]),
            5: i64(sum(page.values for page in column.pages)),
            6: i64(plain_size),
            7: i64(file.size - start),
            9: i64(data_at),
            11: None if dictionary_at is None else i64(dictionary_at),
            12: _statistics(leaf.signed, column.statistics),
        }
    )
    return struct({2: i64(0), 3: described}), plain_size


def _payloads(pages: list[Page], codec: Compression) -> Iterator[tuple[Page, Buffers]]:
    """What is written of each page after its header; the memory of none is kept twice."""
    if codec == "none":
        return ((page, list(page.buffers)) for page in pages)
    return ((page, [compress(b"".join(page.buffers), codec)]) for page in pages)


@lru_cache(1024)  # of constant columns, and of bare pixels, it is mostly the same
def _page_header(
    values: int, encoding: Encoding, plain_size: int, size: int, is_dictionary: bool
) -> bytes:
    count, how, levels = i32(values), i32(encoding), i32(Encoding.RLE)
    return struct(
        {
            1: i32(2 if is_dictionary else 0),
            2: i32(plain_size),
            3: i32(size),
            5: None if is_dictionary else struct({1: count, 2: how, 3: levels, 4: levels}),
            7: struct({1: count, 2: how}) if is_dictionary else None,
        }
    ).data


@lru_cache(1024)
def _statistics(signed: bool, found: Statistics) -> Value | None:
    if found.nulls is None:
        return None
    least = None if found.least is None else binary(found.least)
    greatest = None if found.greatest is None else binary(found.greatest)
    return struct(
        {
            1: greatest if signed else None,  # of readers from before there were orders
            2: least if signed else None,
            3: i64(found.nulls),
            5: greatest,
            6: least,
        }
    )


def _footer(schema: pa.Schema, rows: int, row_groups: list[Value]) -> bytes:
    by_type = struct({1: _EMPTY})  # as the type says: numbers as such, texts by their bytes
    return struct(
        {
            1: i32(2),
            2: _schema(schema),
            3: i64(rows),
            4: array(row_groups),
            5: _metadata(schema),
            6: binary(_CREATED_BY),
            7: array([by_type] * len(_leaves(schema))),
        }
    ).data


@lru_cache(16)  # of jobs, that is
def _leaves(schema: pa.Schema) -> tuple[_Leaf, ...]:
    return tuple(chain.from_iterable(map(_leaves_of, schema)))


def _leaves_of(column: pa.Field, above: tuple[str, ...] = ()) -> Iterator[_Leaf]:
    path = (*above, column.name)
    if pa.types.is_struct(column.type):
        for part in column.type:
            yield from _leaves_of(part, path)
        return
    physical, converted, _ = type_of(column.type)
    signed = physical != _BYTE_ARRAY and converted is None
    yield _Leaf(".".join(path), array([binary(name) for name in path]), i32(physical), signed)


def type_of(kind: pa.DataType) -> tuple[int, int | None, Value | None]:
    """The physical type, the converted type of old readers and the logical type. Raises KeyError
    for a type that files of images do not have."""
    if not pa.types.is_timestamp(kind):
        return _TYPES[kind]
    number, converted = _UNITS[kind.unit]
    of_utc = kind.tz is not None
    logical = struct({8: struct({1: boolean(of_utc), 2: struct({number: _EMPTY})})})
    return 2, converted if of_utc else None, logical


@lru_cache(16)
def _schema(schema: pa.Schema) -> Value:
    root = struct({4: binary("schema"), 5: i32(len(schema))})
    return array([root, *chain.from_iterable(map(_elements, schema))])


def _elements(column: pa.Field) -> Iterator[Value]:
    if pa.types.is_struct(column.type):
        yield struct({3: _OPTIONAL, 4: binary(column.name), 5: i32(column.type.num_fields)})
        for part in column.type:
            yield from _elements(part)
        return
    physical, converted, logical = type_of(column.type)
    yield struct(
        {
            1: i32(physical),
            3: _OPTIONAL,
            4: binary(column.name),
            6: None if converted is None else i32(converted),
            10: logical,
        }
    )


@lru_cache(16)
def _metadata(schema: pa.Schema) -> Value:
    """The schema's own, and the schema as Arrow's readers look for it."""
    arrow = base64.b64encode(schema.serialize())
    pairs = {**schema.metadata, b"ARROW:schema": arrow}
    return array([struct({1: binary(name), 2: binary(text)}) for name, text in pairs.items()])
