"""Lists of jobs by pages, and the order in which queued ones wait."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from cluster.clock import monotonic_s
from cluster.errors import Fatal, NotFound
from cluster.states import JobState
from cluster.storage.layout import ACTIVE
from cluster.storage.object_store import ObjectStore
from cluster.storage.summaries import job_ids
from cluster.types import JobRecord, model_key
from jobs.defaults import JOB_ID
from jobs.service.paging import token_after
from jobs.service.presence import Presence
from jobs.service.quote import Queue, Work
from jobs.service.reading import Standing, find_record, line_of, stand
from jobs.service.views import JobFilter, JobLine, JobPage

logger = logging.getLogger(__name__)
T = TypeVar("T")

_THREADS = 8
_FILTERED = 64  # jobs that are read at once where only some may be wanted
MOST_SCANNED = 2_000  # jobs that one page may look at
MOST_QUEUED = 500  # active jobs that are read to tell a job's place among them
_KEPT_S = 2.0  # so long the queue is taken to stand as it was read,
_KEPT_TIMES = 10.0  # and so many times as long as reading it took
_ACTIVE_STATES = frozenset(
    {
        JobState.QUEUED,
        JobState.STARTING,
        JobState.RUNNING,
        JobState.PAUSING,
        JobState.PAUSED,
        JobState.CANCELLING,
    }
)


def page_of(
    store: ObjectStore, presence: Presence, wanted: JobFilter, size: int, after: str | None
) -> JobPage:
    """At most ``size`` jobs that are wanted and follow the id ``after``, by descending id.

    Without a filter no other job is read; one for a state of jobs that have not ended reads those
    alone. A page may have fewer jobs than there are, or none, where few of very many are wanted.
    """
    open_only = wanted.active or wanted.state in _ACTIVE_STATES
    ids = active_ids(store) if open_only else job_ids(store)
    ids = [i for i in ids if JOB_ID.fullmatch(i) and (after is None or i < after)]
    ids.sort(reverse=True)
    filtered = wanted != JobFilter()
    found: list[JobLine] = []
    at = 0
    while len(found) < size and at < min(len(ids), MOST_SCANNED):
        lacking = size - len(found)
        part = ids[at : at + (max(lacking, _FILTERED) if filtered else lacking)]
        at += len(part)
        for line in _lines(store, presence, wanted, part):
            if len(found) == size:  # the rest of the part is for the next page
                at = ids.index(found[-1].job_id) + 1
                break
            found.append(line)
    left = len(ids) - at
    token = token_after(ids[at - 1]) if left else ""
    return JobPage(jobs=tuple(found), next_page_token=token, left=None if filtered else left)


def active_ids(store: ObjectStore) -> list[str]:
    """The jobs that the service has and that have not ended, as far as is known."""
    return [info.key.removeprefix(ACTIVE) for info in store.list(ACTIVE)]


@dataclass(frozen=True)
class Waiting:
    """An active job. turn: sorts by it; queued: whether it waits for a server."""

    turn: tuple[int, float, str]
    queued: bool
    work: Work

    @property
    def job_id(self) -> str:
        return self.turn[2]


class Queued:
    """The active jobs in the order of their turns, read again every few seconds. Thread-safe."""

    def __init__(
        self, store: ObjectStore, presence: Presence, now_s: Callable[[], float] = monotonic_s
    ) -> None:
        self._store, self._presence, self._now_s = store, presence, now_s
        self._lock = threading.Lock()
        self._again_s = -math.inf
        self._jobs: list[Waiting] | None = []

    def position(self, standing: Standing) -> int | None:
        """How many queued jobs have their turn before this one, itself included: 1 is the next.
        None if it is not queued, or there are too many to tell."""
        if standing.state != JobState.QUEUED:
            return None
        jobs = self._now()
        if jobs is None:
            return None
        turn = _waiting(standing).turn
        return 1 + sum(job.queued and job.turn < turn for job in jobs)

    def before(self, priority: int) -> Queue:
        """The work that goes before a job of this priority which is submitted now."""
        jobs = self._now()
        if jobs is None:
            return Queue(None)
        works = (job.work for job in jobs if -job.turn[0] >= priority and job.work.images > 0)
        return Queue(tuple(works))

    def _now(self) -> list[Waiting] | None:
        with self._lock:
            began_s = self._now_s()
            if began_s >= self._again_s:
                self._jobs = self._read()
                ended_s = self._now_s()
                self._again_s = ended_s + max(_KEPT_S, _KEPT_TIMES * (ended_s - began_s))
            return self._jobs

    def _read(self) -> list[Waiting] | None:
        ids = active_ids(self._store)
        if len(ids) > MOST_QUEUED:
            return None
        standings = _standings(self._store, self._presence, ids, lambda _: True)
        open_jobs = (s for s in standings if s.state in _ACTIVE_STATES)
        return sorted(map(_waiting, open_jobs), key=lambda job: job.turn)


def _waiting(standing: Standing) -> Waiting:
    record, workload = standing.record, standing.workload
    turn = (-record.spec.priority, record.submitted_at.timestamp(), workload.job_id)
    left = workload.count - standing.images
    shards = workload.num_shards - standing.shards
    paused = standing.state in (JobState.PAUSED, JobState.CANCELLING)
    key = model_key(workload.model_rev, workload.precision)
    todo = 0 if paused else max(0, left)
    work = Work(key, todo, max(0, shards), encoding=workload.encoding_key)
    return Waiting(turn, standing.state == JobState.QUEUED, work)


def _lines(
    store: ObjectStore, presence: Presence, wanted: JobFilter, ids: Sequence[str]
) -> list[JobLine]:
    standings = _standings(store, presence, ids, lambda record: _asked_for(record, wanted))
    return [
        line_of(standing)
        for standing in standings
        if (wanted.state is None or standing.state == wanted.state)
        and (not wanted.active or standing.state in _ACTIVE_STATES)
    ]


def _asked_for(record: JobRecord, wanted: JobFilter) -> bool:
    """Whether it is wanted by what was submitted."""
    labels = record.spec.labels
    return (
        (wanted.owner is None or record.owner == wanted.owner)
        and (wanted.since is None or record.submitted_at >= wanted.since)
        and all(labels.get(name) == value for name, value in wanted.label.items())
    )


def _standings(
    store: ObjectStore,
    presence: Presence,
    ids: Sequence[str],
    wanted: Callable[[JobRecord], bool],
) -> list[Standing]:
    """How these jobs stand, in their order. One that is none is left out; a damaged one is logged,
    too."""

    def read(job_id: str) -> Standing | None:
        try:
            record = find_record(store, job_id)
            if record is None or not wanted(record):
                return None
            return stand(store, record, presence)
        except NotFound:  # it is being deleted
            return None
        except Fatal as error:
            logger.warning("job %s is left out: %s", job_id, error)
            return None

    return _there(_in_threads(read, ids))


def _in_threads(work: Callable[[str], T], ids: Sequence[str]) -> list[T]:
    if len(ids) <= 1:
        return [work(job_id) for job_id in ids]
    with ThreadPoolExecutor(min(_THREADS, len(ids))) as pool:
        return list(pool.map(work, ids))


def _there(found: Iterable[T | None]) -> list[T]:
    return [one for one in found if one is not None]
