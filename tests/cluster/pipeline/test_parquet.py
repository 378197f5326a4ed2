"""The file of a shard: what every reader sees is what pyarrow would have written."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.pipeline import parquet
from cluster.pipeline.encoded import Encoded
from cluster.pipeline.parquet import shard_parquet
from cluster.types import MISSING_ENERGY, Compression, Energy, ImageEncoding, Shard, Workload
from tests.support import jobfactory
from tests.support.benchmarks import benchmark
from tests.support.effort import examples

PEER = benchmark("before")
PAGE, GROUP = 600, 2000  # bytes, so that small shards have several of each
SIDE = 6
MEASURED = Energy(energy_mj=7, quality="measured_counter", method="test")
ZERO = Energy(energy_mj=0, quality="measured_power", method="test")
TEXT = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)


@pytest.fixture(autouse=True, scope="module")
def _small_pages() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "_PAGE_PIXEL_BYTES", PAGE)
        patch.setattr(parquet, "_ROW_GROUP_BYTES", GROUP)
        yield


@st.composite
def shards(draw: Callable[..., Any]) -> tuple[Workload, Shard, list[bytes], Energy]:
    """A shard with its files. Row counts favour the ends of pages (5 rows) and row groups."""
    rows = draw(st.one_of(st.integers(1, 60), st.sampled_from([5, 10, 15, 30])))
    near = draw(st.sampled_from([0, 1, 9_990, 10**10 - 7, 10**11 - 3]))
    labels = draw(st.lists(TEXT, max_size=4))
    class_ids = draw(st.lists(st.integers(0, 5) | st.integers(0, 2**40), min_size=1, max_size=9))
    encoding = draw(st.sampled_from(get_args(ImageEncoding)))
    compression = draw(st.none() | st.sampled_from(get_args(Compression)))
    noise = np.random.default_rng(draw(st.integers(0, 99)))
    longest, share_flat = draw(st.sampled_from([0, 119, 200])), draw(st.sampled_from([0, 0.5, 1]))
    lengths = [119] * rows if encoding == "raw" else noise.integers(0, longest + 1, rows).tolist()
    files = [bytes(n) if noise.random() < share_flat else noise.bytes(n) for n in lengths]
    job = jobfactory.workload(
        draw(st.sampled_from(["j", "20261128T120000-a1b2c3"])),
        count=near + rows, shard_images=rows, class_ids=tuple(class_ids), labels=tuple(labels),
        width=SIDE, height=SIDE, encoding=encoding, compression=compression,
    )  # fmt: skip
    energy = draw(st.sampled_from([MISSING_ENERGY, jobfactory.ESTIMATE, MEASURED, ZERO]))
    return job, Shard(job.job_id, 0, near, near + rows), files, energy


def write(
    job: Workload, shard: Shard, files: list[bytes], energy: Energy, cuts: Iterable[int] = ()
) -> bytes:
    """The file, from parts that begin at these rows."""
    at = [0, *sorted(cut for cut in cuts if 0 < cut < len(files)), len(files)]
    parts = [Encoded.of(files[start:stop]) for start, stop in pairwise(at)]
    classes = job.classes_of(shard.start, shard.stop)
    return bytes(shard_parquet(job, shard, classes, parts, energy, "test device"))


def of_pyarrow(job: Workload, shard: Shard, files: list[bytes], energy: Energy) -> pa.Table:
    return PEER.pyarrow_table(job, shard, files, energy, "test device")


@given(shards(), st.sets(st.integers(1, 59), max_size=6))
@settings(max_examples=examples(400, 15))
def test_readers_see_the_rows_that_pyarrow_would_have_written(
    made: tuple[Workload, Shard, list[bytes], Energy], cuts: set[int]
) -> None:
    data = write(*made, cuts)
    assert data == write(*made), "it depends on how the shard was cut into tiles"
    expected = of_pyarrow(*made)
    found = pq.read_table(io.BytesIO(data))
    found.validate(full=True)
    assert found.equals(expected, check_metadata=True)
    with tempfile.NamedTemporaryFile(suffix=".parquet") as file, duckdb.connect() as connection:
        Path(file.name).write_bytes(data)
        cursor = connection.execute(f"select * from '{file.name}'")
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    assert rows == expected.to_pylist()


@given(shards())
@settings(max_examples=examples(200, 10))
def test_statistics_and_schema_are_those_of_pyarrow(
    made: tuple[Workload, Shard, list[bytes], Energy],
) -> None:
    ours = pq.ParquetFile(io.BytesIO(write(*made)))
    sink = io.BytesIO()
    rows = ours.metadata.row_group(0).num_rows
    pq.write_table(of_pyarrow(*made), sink, row_group_size=rows)
    theirs = pq.ParquetFile(sink)
    assert ours.schema.equals(theirs.schema)
    assert ours.metadata.metadata == theirs.metadata.metadata
    assert ours.num_row_groups == theirs.num_row_groups
    for group in range(ours.num_row_groups):
        mine, other = ours.metadata.row_group(group), theirs.metadata.row_group(group)
        assert mine.num_rows == other.num_rows
        for number in range(mine.num_columns):
            column, peer = mine.column(number), other.column(number)
            assert column.path_in_schema == peer.path_in_schema
            assert column.num_values == peer.num_values
            if column.path_in_schema == "image.bytes":
                assert column.statistics is None, "as large as pictures, and useless"
            else:
                assert statistics(column) == statistics(peer), column.path_in_schema


def statistics(column: Any) -> tuple[Any, ...]:
    found = column.statistics
    limits = (found.min_raw, found.max_raw) if found.has_min_max else None
    return found.null_count, found.has_null_count, limits


@given(shards(), st.data())
@settings(max_examples=examples(100, 5))
def test_a_torn_file_is_refused(
    made: tuple[Workload, Shard, list[bytes], Energy], data: st.DataObject
) -> None:
    whole = write(*made)
    torn = whole[: data.draw(st.integers(0, len(whole) - 1))]
    with pytest.raises(pa.ArrowInvalid):
        pq.read_table(io.BytesIO(torn))


def big(rows: int, compression: Compression, flat: slice = slice(0, 0)) -> tuple[Any, ...]:
    """A raw shard of noise, but for these rows, which are of one colour."""
    noise = np.random.default_rng(3).integers(0, 256, (rows, 119), np.uint8)
    noise[flat] = 7
    job = jobfactory.workload(count=rows, shard_images=rows, width=SIDE, height=SIDE,
                              encoding="raw", compression=compression)  # fmt: skip
    return job, job.shard(0), [bytes(row) for row in noise], MEASURED


@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_each_row_group_is_compressed_only_if_that_pays(compression: Compression) -> None:
    made = big(60, compression, flat=slice(15, 30))
    file = pq.ParquetFile(io.BytesIO(write(*made)))
    groups = [file.metadata.row_group(number) for number in range(file.num_row_groups)]
    assert [group.num_rows for group in groups] == [15, 15, 15, 15]
    kept = ["UNCOMPRESSED", compression.upper(), "UNCOMPRESSED", "UNCOMPRESSED"]
    assert [group.column(0).compression for group in groups] == kept
    assert file.read().equals(of_pyarrow(*made))


def test_pictures_that_are_not_compressed_are_not_copied_either() -> None:
    job, shard, files, energy = big(60, "none")
    parts = [Encoded.of(files[:22]), Encoded.of(files[22:])]
    chunks = shard_parquet(job, shard, job.classes_of(0, 60), parts, energy, "test device")
    shared = sum(
        len(buffer)
        for buffer in chunks.buffers
        if any(np.shares_memory(np.frombuffer(buffer, np.uint8), part.data) for part in parts)
    )
    assert shared == sum(len(part.data) for part in parts)


def test_what_is_the_same_in_every_row_takes_no_more_space_for_more_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parquet, "_ROW_GROUP_BYTES", 1 << 30)
    sizes = []
    for rows in (10, 20_000):
        data = write(*big(rows, "none"))
        group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
        columns = {group.column(i).path_in_schema: group.column(i) for i in range(17)}
        names = [field.name for field in parquet.IMAGE_SCHEMA][6:]
        sizes.append([columns[name].total_compressed_size for name in names])
    assert max(more - few for few, more in zip(*sizes, strict=True)) <= 8


@pytest.mark.parametrize("compression", get_args(Compression))
@pytest.mark.parametrize("reader", ["polars", "fastparquet"])
def test_other_readers(reader: str, compression: Compression, tmp_path: Path) -> None:
    library = pytest.importorskip(reader)
    made = big(60, compression, flat=slice(0, 60))
    file = tmp_path / "images.parquet"
    file.write_bytes(write(*made))
    expected = of_pyarrow(*made)
    if reader == "polars":
        assert library.read_parquet(file).to_dicts() == expected.to_pylist()
        return
    frame = library.ParquetFile(str(file)).to_pandas()
    assert list(frame["image.bytes"]) == made[2]
    for name in ("image_id", "index", "class_id", "seed", "energy_j", "hardware"):
        assert list(frame[name]) == expected[name].to_pylist()
    labels = [None if label != label else label for label in frame["label"]]  # NaN is not itself
    assert labels == expected["label"].to_pylist()
