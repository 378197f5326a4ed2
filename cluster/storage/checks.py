"""Checks of a job's records and rows. Pure. Each yields one line per fault."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.storage.image_rows import decode_image, row_columns
from cluster.storage.job_rows import JobRows
from cluster.storage.layout import JobLayout, holds_images
from cluster.storage.schemas import IMAGE_SCHEMA, image_schema
from cluster.types import CommitRecord, DataObject, Energy, Manifest, Shard, Workload

_SHOWN = 3  # examples that one line names


def record_faults(workload: Workload, shard: Shard, record: CommitRecord) -> Iterator[str]:
    """A commit record against the job's grid of shards."""
    key = JobLayout(workload.job_id).commit(shard.index)
    if (record.job_id, record.shard) != (shard.job_id, shard.index):
        yield f"{key}: it speaks of job {record.job_id}, shard {record.shard}"
    if (record.start, record.stop) != (shard.start, shard.stop):
        yield (
            f"{key}: images {record.start} to {record.stop - 1}; by the job's grid this shard is "
            f"{shard.start} to {shard.stop - 1}"
        )
    if record.model_rev != workload.model_rev:
        yield f"{key}: made with model revision {record.model_rev}, not {workload.model_rev}"
    rows = sum(data.rows for data in record.objects if holds_images(data.key))
    if not rows == record.rows == shard.rows:
        yield f"{key}: {rows} rows in its objects, {record.rows} in all; {shard.rows} expected"
    home = JobLayout(workload.job_id).attempt(shard.index, record.attempt_id)
    for data in record.objects:
        if not data.key.startswith(home):
            yield f"{key}: it vouches for {data.key}, which is not under {home}"


def object_faults(shard: Shard, data: DataObject, blob: bytes) -> Iterator[str]:
    """An object's bytes against what the commit record says of them. At most one line."""
    place = f"{data.key} (shard {shard.index})"
    if len(blob) != data.size_bytes:
        yield f"{place}: {len(blob)} bytes, committed as {data.size_bytes}"
    elif (found := hashlib.sha256(blob).hexdigest()) != data.sha256:
        yield f"{place}: damaged: its sha256 is {found}, committed as {data.sha256}"


def row_faults(
    workload: Workload, shard: Shard, record: CommitRecord, table: pa.Table, rows: JobRows
) -> Iterator[str]:
    """A shard's images against the job and the rows that they are of; they are not decoded."""
    place = f"{record.objects[0].key} (shard {shard.index})"
    schema = IMAGE_SCHEMA if rows.carried is None else image_schema(rows.carried.schema)
    if not table.schema.equals(schema):
        found, wanted = ({f"{f.name}: {f.type}" for f in s} for s in (table.schema, schema))
        odd = ", ".join(sorted(found ^ wanted)) or "their order"
        yield f"{place}: its columns are not those of images; see {odd}"
        return
    if table.num_rows != shard.rows:
        yield f"{place}: {table.num_rows} rows; {shard.rows} expected"
    if faults := list(_index_faults(table["index"], shard)):
        yield from (f"{place}: {fault}" for fault in faults)
        return  # other columns are compared by position
    expected = row_columns(workload, shard, rows.class_ids, record.hardware)
    if rows.seeds is not None:
        expected["seed"] = pa.array(rows.seeds, pa.uint64())
    if rows.carried is not None:
        expected |= {name: rows.carried[name] for name in rows.carried.column_names}
    for name, column in expected.items():
        differs = pc.fill_null(_not_equal(table[name], column), False)
        differs = pc.or_(differs, pc.xor(pc.is_null(table[name]), pc.is_null(column)))
        at = np.flatnonzero(differs.to_numpy())
        if len(at):
            first = int(at[0])
            yield (
                f"{place}: {name} is wrong in {len(at)} rows; first at index "
                f"{shard.start + first}: {table[name][first]}, expected {column[first]}"
            )
    yield from _energy_faults(place, record.energy, table)


def _not_equal(found: pa.ChunkedArray, expected: pa.Array) -> pa.ChunkedArray:
    differs = pc.not_equal(found, expected)
    if not pa.types.is_floating(found.type):
        return differs
    return pc.and_not(differs, pc.and_(pc.is_nan(found), pc.is_nan(expected)))


def _index_faults(column: pa.ChunkedArray, shard: Shard) -> Iterator[str]:
    if column.null_count:
        yield f"{column.null_count} rows have no index"
        return
    found = column.to_numpy()
    expected = np.arange(shard.start, shard.stop)
    if np.array_equal(found, expected):
        return
    values, counts = np.unique(found, return_counts=True)
    for what, which in (
        ("are there more than once", values[counts > 1]),
        ("are missing", np.setdiff1d(expected, values)),
        ("belong to other shards", np.setdiff1d(values, expected)),
    ):
        if len(which):
            yield f"indices {ranges(which)} {what}"
    if np.array_equal(np.sort(found), expected):
        yield "rows are not in index order"


def _energy_faults(place: str, energy: Energy, table: pa.Table) -> Iterator[str]:
    for name, whole_mj in (
        ("energy_j", energy.energy_mj),
        ("energy_low_j", energy.low_mj),
        ("energy_high_j", energy.high_mj),
    ):
        nulls, total_j = table[name].null_count, pc.sum(table[name]).as_py()
        if whole_mj is None:
            if nulls != table.num_rows:
                yield f"{place}: {name} has values; its commit record has none"
        elif nulls or abs(total_j * 1000 - whole_mj) > 0.5:  # mJ: rounding of thousands of parts
            yield f"{place}: {name} adds up to {total_j} J; its commit record has {whole_mj} mJ"


def decode_block(batch: pa.RecordBatch, width: int, height: int) -> tuple[bytes, list[str]]:
    """(index as little-endian uint64, pixels (height, width, 3)) per row, and what is wrong."""
    pixel = np.dtype([("index", "<u8"), ("pixels", np.uint8, (height, width, 3))])
    block = np.zeros(batch.num_rows, pixel)
    faults = []
    for row, target in zip(batch.to_pylist(), block, strict=True):
        try:
            picture = decode_image(row)
        except ValueError as error:
            faults.append(f"index {row['index']} {error}")
            continue
        if picture.size != (width, height):
            size = f"{picture.width}x{picture.height}"
            faults.append(f"index {row['index']} is {size}, not {width}x{height}")
            continue
        target["index"], target["pixels"] = row["index"], np.asarray(picture)
    return block.tobytes(), faults


def differing(listed: Iterable[CommitRecord], records: Iterable[CommitRecord]) -> Iterator[int]:
    """Shards whose commit record is not the one listed, or not listed. Both ascend by shard."""
    others = iter(listed)
    other = next(others, None)
    for record in records:
        while other is not None and other.shard < record.shard:
            other = next(others, None)
        if other != record:
            yield record.shard


def manifest_faults(manifest: Manifest, images: int, energy: Energy) -> Iterator[str]:
    """A completed job's manifest against the sums of the commits that it names."""
    key = JobLayout(manifest.job_id).manifest
    if manifest.images != images:
        yield f"{key}: it counts {manifest.images} images; its commits have {images}"
    if manifest.energy.energy_mj != energy.energy_mj:
        yield (
            f"{key}: its energy is {manifest.energy.energy_mj} mJ; its commits have "
            f"{energy.energy_mj} mJ"
        )


def examples(faults: list[str]) -> str:
    """The first few faults, and how many more there are."""
    more = len(faults) - _SHOWN
    return "; ".join(faults[:_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def ranges(numbers: Iterable[int] | NDArray[np.int64]) -> str:
    """``3, 5-7`` for 3, 5, 6 and 7; at most ten runs."""
    array = np.unique(np.fromiter(numbers, np.int64))
    runs = np.split(array, np.flatnonzero(np.diff(array) > 1) + 1)
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs[:10]]
    return ", ".join(shown) + (", …" if len(runs) > len(shown) else "")
