"""The decision log of a job: the scheduler's decisions and reasons, as JSON lines in the store.

Files are written whole and never changed. Generation never waits for them: if the store is
unavailable, decisions are dropped with a warning.
"""

from __future__ import annotations

import logging
import math
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Literal

from pydantic import AwareDatetime, ValidationError

from cluster.clock import Anchor
from cluster.errors import NotFound
from cluster.scheduler.explain import Decision, Kind
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import SCHEMA_VERSION, Record

logger = logging.getLogger(__name__)
LINES_A_FILE = 500
MOST_WAITING = 10_000  # lines of a job, while the store is slow; the oldest go first


class RivalRecord(Record):
    """Hardware that a plan considered. cost: of an image, start-up included, in the unit of the
    job's objective; samples: windows of work measured on it; verdict: what was decided of it."""

    hardware: str
    cost: float | None
    samples: int
    verdict: str


class DecisionRecord(Record):
    """One line: a ``scheduler.explain.Decision``, whose plans are numbered within a run."""

    schema_version: Literal[1] = SCHEMA_VERSION
    run_id: str
    at: AwareDatetime
    kind: Kind
    plan: int
    why: str
    job_id: str | None = None
    replica_id: str | None = None
    hardware: str | None = None
    first: int | None = None
    stop: int | None = None
    predicted_s: float | None = None
    predicted_j: float | None = None
    rivals: tuple[RivalRecord, ...] = ()
    demand: str | None = None


@dataclass
class _Pages:
    """Lines of one job that are not in the store yet. number: of the next file."""

    lines: deque[str] = field(default_factory=lambda: deque(maxlen=MOST_WAITING))
    number: int = 0
    writing: bool = False


class DecisionLog:
    """Writes one run's decisions beside the jobs concerned. Thread-safe. Only ``close`` waits for
    the store, and no call raises a store's errors.

    Decisions about the fleet (plans, wakes, parks) are written for every running job; a job that
    begins later gets the plan in force. anchor: converts ``Decision.at_s``, of the monotonic clock,
    to UTC.
    """

    def __init__(
        self,
        store: ObjectStore,
        run_id: str,
        *,
        anchor: Anchor | None = None,
        lines_a_file: int = LINES_A_FILE,
    ) -> None:
        self._store = store
        self._run_id = run_id
        self._anchor = anchor or Anchor.now()
        self._lines_a_file = lines_a_file
        self._jobs: dict[str, _Pages] = {}
        self._plans: list[Decision] = []  # of the latest number
        self._lock = threading.Lock()
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="decisions")

    def begin(self, job_id: str) -> None:
        """Start logging for the job."""
        with self._lock:
            pages = self._jobs.setdefault(job_id, _Pages())
            pages.lines.extend(map(self._line, self._plans))

    def append(self, decisions: Iterable[Decision]) -> None:
        """Add decisions, in order."""
        with self._lock:
            for decision in decisions:
                if decision.kind == "plan":
                    self._remember(decision)
                line = self._line(decision)
                for pages in self._about(decision.job_id):
                    pages.lines.append(line)
            for job_id, pages in self._jobs.items():
                if len(pages.lines) >= self._lines_a_file:
                    self._write_soon(job_id, pages)

    def flush(self) -> None:
        """Have everything written soon. Call it now and then, so that a run that lasts can be
        explained while it lasts."""
        with self._lock:
            for job_id, pages in self._jobs.items():
                self._write_soon(job_id, pages)

    def end(self, job_id: str) -> Future[None]:
        """The job is over: its last lines are written, and no more are taken. Done when they are
        in the store, or given up."""
        with self._lock:
            pages = self._jobs.pop(job_id, _Pages())
        return self._writer.submit(self._write, job_id, pages)

    def close(self) -> None:
        """End every job, and wait until all lines are written or given up."""
        for job_id in list(self._jobs):
            self.end(job_id)
        self._writer.shutdown()

    def _remember(self, plan: Decision) -> None:
        if self._plans and self._plans[0].plan != plan.plan:
            self._plans = []
        self._plans.append(plan)

    def _about(self, job_id: str | None) -> Iterable[_Pages]:
        if job_id is None:
            return self._jobs.values()
        return [self._jobs[job_id]] if job_id in self._jobs else []

    def _write_soon(self, job_id: str, pages: _Pages) -> None:
        if pages.lines and not pages.writing:
            pages.writing = True
            self._writer.submit(self._write, job_id, pages)

    def _write(self, job_id: str, pages: _Pages) -> None:
        with self._lock:
            lines = list(pages.lines)
            pages.lines.clear()
            pages.writing = False
            number, pages.number = pages.number, pages.number + 1
        if not lines:
            return
        key = JobLayout(job_id).decisions_of(self._run_id, number)
        try:
            self._store.put(key, "".join(lines).encode())
        except Exception as error:
            logger.warning("%d decisions about job %s are lost: %s", len(lines), job_id, error)

    def _line(self, decision: Decision) -> str:
        record = DecisionRecord(
            run_id=self._run_id,
            at=self._anchor.utc_at(int(decision.at_s * 1e9)),
            kind=decision.kind,
            plan=decision.plan,
            why=decision.why,
            demand=decision.demand,
            job_id=decision.job_id,
            replica_id=decision.replica_id,
            hardware=decision.hardware,
            first=decision.first,
            stop=decision.stop,
            predicted_s=_finite(decision.predicted_s),
            predicted_j=_finite(decision.predicted_j),
            rivals=tuple(
                RivalRecord(
                    hardware=rival.hardware,
                    cost=_finite(rival.cost),
                    samples=rival.samples,
                    verdict=rival.verdict,
                )
                for rival in decision.rivals
            ),
        )
        return record.model_dump_json() + "\n"


def read_decisions(store: ObjectStore, job_id: str) -> list[DecisionRecord]:
    """Every decision about the job in the store, in order of time. Damaged lines are logged and
    skipped."""
    keys = [info.key for info in store.list(JobLayout(job_id).decisions)]
    found = [record for key in keys for record in _read(store, key)]
    return sorted(found, key=lambda record: record.at)


def _read(store: ObjectStore, key: str) -> Iterator[DecisionRecord]:
    try:
        lines = store.get(key).splitlines()
    except NotFound:  # deleted since
        return
    for number, line in enumerate(lines, start=1):
        try:
            yield DecisionRecord.model_validate_json(line)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            logger.warning("%s, line %d is left out: %s", key, number, first["msg"])


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value
