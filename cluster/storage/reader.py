"""Reading a store: its jobs, and their committed images."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.energy import sum_energy
from cluster.errors import Fatal, NotFound, UserError
from cluster.states import JobState
from cluster.storage.commit import ended_state, parse_record, read_commits
from cluster.storage.image_rows import decode_image
from cluster.storage.layout import JOBS, JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import (
    MISSING_ENERGY,
    CommitRecord,
    Energy,
    JobRecord,
    Manifest,
    Workload,
)
from un0.suggest import did_you_mean

__all__ = [
    "JobSummary",
    "decode_image",
    "iter_images",
    "list_jobs",
    "load_job",
    "read_rows",
    "summarise",
]

logger = logging.getLogger(__name__)

_JOB_THREADS = 8
_ROWS_AT_ONCE = 64


@dataclass(frozen=True)
class JobSummary:
    """A job as recorded in its store. State ``incomplete``: it still runs, or was stopped."""

    record: JobRecord
    state: JobState
    commits: tuple[CommitRecord, ...]

    @property
    def workload(self) -> Workload:
        return self.record.workload

    @property
    def job_id(self) -> str:
        return self.workload.job_id

    @property
    def model(self) -> str:
        return self.workload.model

    @property
    def owner(self) -> str:
        return self.record.owner

    @property
    def submitted_at(self) -> datetime:
        return self.record.submitted_at

    @property
    def count(self) -> int:
        """Images asked for."""
        return self.workload.count

    @property
    def images(self) -> int:
        """Images committed."""
        return sum(commit.rows for commit in self.commits)

    @property
    def energy(self) -> Energy:
        """Energy of all committed images; missing while there are none."""
        if not self.commits:
            return MISSING_ENERGY
        return sum_energy(commit.energy for commit in self.commits)


def list_jobs(store: ObjectStore) -> list[JobSummary]:
    """Every job of the store, oldest first. Unreadable ones are logged and skipped."""
    with ThreadPoolExecutor(_JOB_THREADS) as pool:
        summaries = pool.map(lambda job_id: _summarise_or_warn(store, job_id), job_ids(store))
        return sorted(filter(None, summaries), key=lambda job: (job.submitted_at, job.job_id))


def summarise(store: ObjectStore, job_id: str) -> JobSummary:
    """One job and its commits. Raises UserError for an unknown job."""
    return _summarise(store, load_job(store, job_id))


def load_job(store: ObjectStore, job_id: str) -> JobRecord:
    """The job as submitted. Raises UserError, naming similar jobs, if the store has no such."""
    key = JobLayout(job_id).spec
    try:
        return parse_record(JobRecord, key, store.get(key))
    except NotFound:
        known = job_ids(store)
    uri = store.config.uri
    if not known:
        raise UserError(f"no job {job_id!r}: {uri} holds no jobs at all; check --store")
    fix = did_you_mean(job_id, known) or "`un0 jobs` lists those it has"
    raise UserError(f"no job {job_id!r} in {uri}; {fix}")


def job_ids(store: ObjectStore) -> list[str]:
    """Ids of the jobs in the store, sorted."""
    return list(store.list_dirs(JOBS))


def iter_images(
    store: ObjectStore,
    job_id: str,
    *,
    columns: Sequence[str] | None = None,
    class_id: int | None = None,
    limit: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Rows of a job's committed images, in index order; ``decode_image`` decodes a row.

    columns: names from ``IMAGE_SCHEMA``; all by default. class_id: only images of that class.
    limit: at most so many rows; no shard beyond them is read. A job that is not complete yields
    what it has. Raises UserError for an unknown job, column or class.
    """
    columns = _known_columns(columns)
    summary = summarise(store, job_id)
    workload = summary.workload
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
            classes = summary.workload.classes_of(commit.start, commit.stop)
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


def _summarise(store: ObjectStore, record: JobRecord) -> JobSummary:
    job_id = record.workload.job_id
    state = ended_state(store, job_id)
    if state == JobState.COMPLETED:  # its manifest never changes, and spares a request per shard
        key = JobLayout(job_id).manifest
        return JobSummary(record, state, parse_record(Manifest, key, store.get(key)).commits)
    commits = tuple(read_commits(store, job_id).values())
    return JobSummary(record, state or JobState.INCOMPLETE, commits)


def _summarise_or_warn(store: ObjectStore, job_id: str) -> JobSummary | None:
    key = JobLayout(job_id).spec
    try:
        return _summarise(store, parse_record(JobRecord, key, store.get(key)))
    except NotFound:
        return None  # another thing under the jobs' prefix, or a job being deleted
    except Fatal as error:
        logger.warning("job %s is left out: %s", job_id, error)
        return None


def _known_columns(columns: Sequence[str] | None) -> list[str]:
    for name in columns or ():
        if name not in IMAGE_SCHEMA.names:
            raise UserError(f"no column {name!r}; images have {', '.join(IMAGE_SCHEMA.names)}")
    return list(IMAGE_SCHEMA.names if columns is None else columns)


def _some(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, sorted(set(values))[:20]))
    return shown + (", …" if len(set(values)) > 20 else "")
