"""The jobs of a store: as submitted, how far they have come, what they took. Opens no image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from cluster.errors import Fatal, NotFound, UserError
from cluster.states import JobState
from cluster.storage.commit import ended_state, parse_record
from cluster.storage.commits import Commits, commits_of, open_commits
from cluster.storage.layout import JOBS, JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import MISSING_ENERGY, Energy, JobRecord, Manifest, Workload
from un0.suggest import did_you_mean

logger = logging.getLogger(__name__)

_JOB_THREADS = 8


@dataclass(frozen=True)
class JobSummary:
    """A job as its store tells of it. ``incomplete``: no end is recorded; it runs, or stopped."""

    record: JobRecord
    state: JobState
    commits: Commits

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
        return self.commits.images

    @property
    def energy(self) -> Energy:
        """Of the committed images together; missing while there are none."""
        return self.commits.energy if self.commits else MISSING_ENERGY


def list_jobs(store: ObjectStore) -> list[JobSummary]:
    """Every job of the store, oldest first. One that cannot be read is logged and left out."""
    found = _summaries(store, job_ids(store))
    return sorted(found, key=lambda job: (job.submitted_at, job.job_id))


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


def _summarise(store: ObjectStore, record: JobRecord) -> JobSummary:
    job_id = record.workload.job_id
    state = ended_state(store, job_id)
    if state == JobState.COMPLETED:  # its manifest never changes, and spares a request per shard
        key = JobLayout(job_id).manifest
        commits = commits_of(store, parse_record(Manifest, key, store.get(key)))
        return JobSummary(record, state, commits)
    commits = open_commits(store, job_id, shards=record.workload.num_shards)
    return JobSummary(record, state or JobState.INCOMPLETE, commits)


def _summaries(store: ObjectStore, ids: Sequence[str]) -> list[JobSummary]:
    with ThreadPoolExecutor(_JOB_THREADS) as pool:
        found = pool.map(lambda job_id: _summarise_or_warn(store, job_id), ids)
        return [job for job in found if job is not None]


def _summarise_or_warn(store: ObjectStore, job_id: str) -> JobSummary | None:
    key = JobLayout(job_id).spec
    try:
        summary = _summarise(store, parse_record(JobRecord, key, store.get(key)))
        _ = summary.images  # reads the commits that must be read
        return summary
    except NotFound:
        return None  # another thing under the jobs' prefix, or a job being deleted
    except Fatal as error:
        logger.warning("job %s is left out: %s", job_id, error)
        return None
