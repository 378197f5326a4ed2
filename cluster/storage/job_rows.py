"""What the images of a job are of: a rule of their index, or rows that lie in its store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.errors import Fatal, NotFound
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import Inputs, Record, Workload

OWN_PREFIX = "un0."  # of columns in parts that are not carried on: no user's is called so
CLASS_COLUMN, SEED_COLUMN = f"{OWN_PREFIX}class_id", f"{OWN_PREFIX}seed"


class InputsBegun(Record):
    """When the parts beside it began to be written. Without a job they are garbage in the end."""

    at: datetime


@dataclass(frozen=True)
class JobRows:
    """What some images of a job are of, consecutive ones, a row each.

    class_ids: (rows,). seeds, indices: image k has the noise of image ``indices[k]`` of seed
    ``seeds[k]``; None where all have that of the job's seed and their own index. carried: columns
    that go on with the images; None of a job without rows.
    """

    class_ids: NDArray[np.int64]
    seeds: NDArray[np.uint64] | None = None
    indices: NDArray[np.int64] | None = None
    carried: pa.Table | None = None


def rows_of(store: ObjectStore, workload: Workload, start: int, stop: int) -> JobRows:
    """Those of images start..stop-1. Raises Fatal if rows are missing or damaged."""
    inputs = workload.inputs
    if inputs is None:
        return JobRows(workload.classes_of(start, stop))
    table = pa.concat_tables(list(_read(store, workload.job_id, inputs, start, stop)))
    if table.num_rows != stop - start:
        raise Fatal(
            f"the rows of job {workload.job_id} are damaged: {start} to {stop - 1} are "
            f"{table.num_rows} rows; `un0 verify {workload.job_id}` says more"
        )
    class_ids = table[CLASS_COLUMN].to_numpy()
    carried = table.select(inputs.columns)
    if not inputs.seeded:
        return JobRows(class_ids, carried=carried)
    own = table[SEED_COLUMN].is_valid().to_numpy()
    seeds = pc.fill_null(table[SEED_COLUMN], pa.scalar(workload.seed, pa.uint64())).to_numpy()
    indices = np.where(own, 0, np.arange(start, stop, dtype=np.int64))
    return JobRows(class_ids, seeds, indices, carried)


def carried_schema(store: ObjectStore, workload: Workload) -> pa.Schema:
    """The columns that a job's images carry on, with their types; none of a job without rows."""
    if workload.inputs is None:
        return pa.schema([])
    empty = next(_read(store, workload.job_id, workload.inputs, 0, 0)).schema
    return pa.schema([empty.field(name) for name in workload.inputs.columns])


def input_faults(store: ObjectStore, workload: Workload) -> Iterator[str]:
    """What is wrong with the rows in the store, against the job's digest of them."""
    inputs = workload.inputs
    if inputs is None:
        return
    digests = []
    for number in range(-(-workload.count // inputs.part_rows)):
        key = JobLayout(workload.job_id).input_part(inputs.digest, number)
        try:
            digests.append(hashlib.sha256(store.get(key)).hexdigest())
        except NotFound:
            yield f"{key}: missing"
            return
    if digest_of(digests) != inputs.digest:
        prefix = f"{JobLayout(workload.job_id).inputs}{inputs.digest}/"
        yield f"{prefix}: the rows are damaged: their digest is {digest_of(digests)}"


def digest_of(parts: list[str]) -> str:
    """The digest of rows by those of their parts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _read(
    store: ObjectStore, job_id: str, inputs: Inputs, start: int, stop: int
) -> Iterator[pa.Table]:
    """The rows, from the row groups that hold them; at least one table, which may be empty."""
    size = inputs.part_rows
    for number in range(start // size, max(-(-stop // size), start // size + 1)):
        key = JobLayout(job_id).input_part(inputs.digest, number)
        first, last = max(start - number * size, 0), min(stop - number * size, size)
        try:
            with store.open_reader(key) as source, pq.ParquetFile(source) as file:
                yield _slice(file, first, max(last, first))
        except NotFound as error:
            raise Fatal(
                f"{key}: missing; without its rows job {job_id} cannot go on: submit it again"
            ) from error
        except (pa.ArrowException, OSError) as error:
            raise Fatal(f"{key}: not readable: {error}; submit job {job_id} again") from error


def _slice(file: pq.ParquetFile, first: int, last: int) -> pa.Table:
    groups: list[int] = []
    before = position = 0
    for number in range(file.num_row_groups):
        rows = file.metadata.row_group(number).num_rows
        if position + rows > first and position < last:
            if not groups:
                before = position
            groups.append(number)
        position += rows
    return file.read_row_groups(groups).slice(first - before, last - first)
