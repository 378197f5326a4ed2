"""Reading a store: its jobs, and their committed images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.errors import Fatal, UserError
from cluster.storage.image_rows import decode_image
from cluster.storage.job_rows import rows_of
from cluster.storage.object_store import ObjectStore
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.storage.summaries import JobSummary, summarise
from cluster.types import CommitRecord, Workload

__all__ = ["decode_image", "iter_images", "read_rows"]

_ROWS_AT_ONCE = 64


def iter_images(
    store: ObjectStore,
    job_id: str,
    *,
    columns: Sequence[str] | None = None,
    class_id: int | None = None,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of a job's committed images, in index order; ``decode_image`` decodes a row.

    columns: names from ``IMAGE_SCHEMA``, or of what the job's rows carry; all by default.
    class_id: only images of that class. limit: at most so many rows; no shard beyond them is read.
    A job that is not complete yields what it has. Raises UserError for an unknown job, column or
    class.
    """
    summary = summarise(store, job_id)
    workload = summary.workload
    columns = _known_columns(columns, workload)
    if class_id is not None and class_id not in workload.class_ids:
        raise UserError(f"job {job_id} has no class {class_id}; it has {_some(workload.class_ids)}")
    if limit is not None and limit < 0:
        raise UserError(f"limit is {limit}; it must be 0 or more")
    return islice(_rows(store, summary, columns, class_id), limit)


def _rows(
    store: ObjectStore, summary: JobSummary, columns: list[str], class_id: int | None
) -> Iterator[dict[str, Any]]:
    for commit in summary.commits:
        wanted = np.arange(commit.rows)
        if class_id is not None:
            classes = rows_of(store, summary.workload, commit.start, commit.stop).class_ids
            wanted = np.flatnonzero(classes == class_id)
        yield from read_rows(store, commit, wanted, columns)


def read_rows(
    store: ObjectStore, commit: CommitRecord, wanted: NDArray[np.int64], columns: list[str]
) -> Iterator[dict[str, Any]]:
    """Rows of a commit by their ascending positions in it, reading only the row groups needed."""
    position = 0
    for data in commit.objects:
        here = wanted[(wanted >= position) & (wanted < position + data.rows)] - position
        position += data.rows
        if len(here) == 0:
            continue
        try:
            with store.open_reader(data.key) as source, pq.ParquetFile(source) as file:
                yield from _rows_of(file, here, columns)
        except (pa.ArrowInvalid, OSError) as error:
            raise Fatal(
                f"{data.key}: cannot be read ({error}); `un0 verify {commit.job_id}` says more"
            ) from error


def _rows_of(
    file: pq.ParquetFile, wanted: NDArray[np.int64], columns: list[str]
) -> Iterator[dict[str, Any]]:
    stop = 0
    for group in range(file.num_row_groups):
        start, stop = stop, stop + file.metadata.row_group(group).num_rows
        here = wanted[(wanted >= start) & (wanted < stop)] - start
        if len(here):
            table = file.read_row_group(group, columns).select(columns)
            if len(here) < stop - start:
                table = table.take(here)
            for batch in table.to_batches(max_chunksize=_ROWS_AT_ONCE):
                yield from batch.to_pylist()


def _known_columns(columns: Sequence[str] | None, workload: Workload) -> list[str]:
    carried = () if workload.inputs is None else workload.inputs.columns
    known = [*IMAGE_SCHEMA.names, *carried]
    for name in columns or ():
        if name not in known:
            raise UserError(f"no column {name!r}; images have {', '.join(known)}")
    return list(known if columns is None else columns)


def _some(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(set(values))[:20]))
    return shown + (", …" if len(set(values)) > 20 else "")
