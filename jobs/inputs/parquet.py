"""Rows of Parquet, as a stream: the types that images can carry are kept."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import UserError
from jobs.inputs.rows import BATCH_ROWS, RawRows, check_names, roles_of
from jobs.spec import InputsSpec

_BUFFER = 1 << 20


def parquet_rows(file: BinaryIO, inputs: InputsSpec) -> Iterator[RawRows]:
    """Rows of a Parquet file. Raises UserError for columns of types that images do not carry."""
    try:
        yield from _rows(pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER), inputs)
    except (pa.ArrowException, OSError, OverflowError, ValueError) as error:
        text = str(error).splitlines()[0][:300] if str(error) else type(error).__name__
        raise UserError(f"inputs: {inputs.source} is not readable as Parquet: {text}") from error


def _rows(source: pq.ParquetFile, inputs: InputsSpec) -> Iterator[RawRows]:
    schema = source.schema_arrow
    if len(set(schema.names)) < len(schema.names):
        raise UserError(f"inputs: {inputs.source} has two columns of one name; rename one")
    roles = roles_of(inputs, schema.names)
    carried = check_names(roles, schema.names)
    types = {name: _carried_type(name, schema.field(name).type) for name in carried}
    begin = 1
    for batch in source.iter_batches(BATCH_ROWS, use_threads=False):
        batch.validate(full=True)
        rows = batch.num_rows

        def values(name: str | None, batch: pa.RecordBatch = batch) -> list[object]:
            return [] if name is None else list(batch.column(name).to_pylist())

        yield RawRows(
            list(range(begin, begin + rows)),
            values(roles.class_),
            values(roles.seed),
            values(roles.custom_id),
            pa.table({name: batch.column(name).cast(kind) for name, kind in types.items()}),
        )
        begin += rows


def _carried_type(name: str, kind: pa.DataType) -> pa.DataType:
    """As images carry it. Raises UserError."""
    if pa.types.is_dictionary(kind):
        return _carried_type(name, kind.value_type)
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ms", kind.tz) if kind.unit == "s" else kind
    if (
        pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind)
        or pa.types.is_boolean(kind) or pa.types.is_string(kind) or pa.types.is_binary(kind)
        or pa.types.is_date32(kind)
    ):  # fmt: skip
        return kind
    raise UserError(
        f"inputs: the column {name!r} is of type {kind}, which images do not carry; make it a "
        "number, a text, bytes, a truth, a date or a time stamp, or leave it out"
    )
