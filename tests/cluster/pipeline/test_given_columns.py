"""Columns that images carry on from a job's rows: readers see the values that users gave."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.pipeline import parquet, parquet_given
from cluster.pipeline.encoded import Encoded
from cluster.pipeline.parquet import shard_parquet
from cluster.storage.job_rows import JobRows
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import MISSING_ENERGY
from tests.support import jobfactory
from tests.support.effort import examples

TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
KINDS: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.bool_(), st.booleans()),
    *(
        (kind, st.integers(-(2 ** (kind.bit_width - 1)), 2 ** (kind.bit_width - 1) - 1))
        for kind in (pa.int8(), pa.int16(), pa.int32(), pa.int64())
    ),
    *(
        (kind, st.integers(0, 2**kind.bit_width - 1))
        for kind in (pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64())
    ),
    (pa.float32(), st.floats(width=32, allow_nan=False)),
    (pa.float64(), st.floats(allow_nan=False)),
    (pa.string(), TEXT),
    (pa.binary(), st.binary(max_size=40)),
    (pa.date32(), st.integers(-700_000, 2_000_000)),
    *(
        (pa.timestamp(unit, zone), st.integers(-(10**11), 10**12))
        for unit in ("ms", "us", "ns")
        for zone in (None, "UTC", "Europe/Berlin")
    ),
]


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_ROW_GROUP_BYTES", 300)
        patch.setattr(parquet_given, "_PAGE_BYTES", 60)
        patch.setattr(parquet_given, "_PAGE_ROWS", 9)
        yield


@st.composite
def carried(draw: st.DrawFn) -> pa.Table:
    rows = draw(st.integers(1, 40))
    some = draw(st.lists(st.integers(0, len(KINDS) - 1), min_size=1, max_size=6, unique=True))
    columns = {}
    for number in some:
        kind, values = KINDS[number]
        given_values = draw(st.lists(st.none() | values, min_size=rows, max_size=rows))
        columns[f"c{number}"] = pa.array(given_values, kind)
    table = pa.table(columns)
    cut = draw(st.integers(0, rows))
    return pa.concat_tables([table.slice(0, cut), table.slice(cut)])


def write(table: pa.Table, seeds: list[int] | None = None) -> bytes:
    rows = table.num_rows
    job = jobfactory.workload(count=rows, shard_images=rows, width=2, height=2, encoding="raw")
    parts = [Encoded.of([bytes(23)] * rows)]
    noise = (None, None) if seeds is None else (np.array(seeds, np.uint64), np.zeros(rows, int))
    classes = job.classes_of(0, rows)
    data = shard_parquet(
        job,
        job.shard(0),
        classes,
        parts,
        MISSING_ENERGY,
        "test",
        rows=JobRows(classes, *noise, table),
    )
    return bytes(data)


@given(carried())
@settings(max_examples=examples(400, 25))
def test_types_and_values_are_kept(table: pa.Table) -> None:
    data = write(table)
    found = pq.read_table(io.BytesIO(data))
    found.validate(full=True)
    assert found.column_names == [*IMAGE_SCHEMA.names, *table.column_names]
    assert found.select(table.column_names).cast(table.schema).equals(table)
    assert found.schema.field(len(IMAGE_SCHEMA)).type == table.schema.field(0).type
    bare = pq.ParquetFile(io.BytesIO(data)).schema  # what readers see that do not know Arrow
    sink = io.BytesIO()
    pq.write_table(table, sink, store_schema=False)
    theirs = pq.ParquetFile(sink).schema
    for number in range(len(table.column_names)):
        ours, other = bare.column(number + len(bare) - len(theirs)), theirs.column(number)
        assert (ours.physical_type, str(ours.logical_type)) == (
            other.physical_type,
            str(other.logical_type),
        )


@given(carried())
@settings(max_examples=examples(100, 8))
def test_duckdb_reads_the_same(table: pa.Table) -> None:
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect() as connection:
        Path(file.name).write_bytes(write(table))
        names = ", ".join(table.column_names)
        connection.register("expected", table)
        connection.execute("set timezone = 'UTC'")
        found = pa.table(connection.sql(f"select {names} from '{file.name}'"))
        expected = pa.table(connection.sql(f"select {names} from expected"))
        assert found.cast(expected.schema).equals(expected)  # it reads milliseconds as microseconds


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=30))
def test_each_row_may_have_its_seed(seeds: list[int]) -> None:
    table = pa.table({"x": pa.array(range(len(seeds)))})
    assert pq.read_table(io.BytesIO(write(table, seeds)))["seed"].to_pylist() == seeds


def test_hugging_face_reads_them() -> None:
    datasets = pytest.importorskip("datasets")
    table = pa.table({"a": ["x", None], "b": pa.array([1.5, 2], pa.float32()), "c": [True, None]})
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.parquet")
        path.write_bytes(write(table))
        found = datasets.Dataset.from_parquet(str(path), cache_dir=folder)
        assert found.remove_columns(IMAGE_SCHEMA.names).to_list() == table.to_pylist()
