"""A replica's work: assignments in order, shard after shard, and what came of them.

One thread begins shards: the device makes one at a time. How many are encoded and uploaded
meanwhile is for the runner to limit.
"""

from __future__ import annotations

import logging
import threading
import uuid
from bisect import insort
from collections.abc import Callable, Collection
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Protocol

from cluster.actors.outcomes import Done, Failed, Failure, Order, Progress, Report, done_of, merged
from cluster.actors.reasons import plain
from cluster.clock import monotonic_s
from cluster.errors import Fatal, Retryable, UserError
from cluster.ledger.usage import Outcome
from cluster.pipeline.giving_up import Abandoned
from cluster.pipeline.publisher import PATIENCE_S, Attempt
from cluster.stage_times import StageTimes
from cluster.storage.commits import has_checkpoints
from cluster.types import CommitRecord, Shard, Workload
from un0.errors import Un0Error

logger = logging.getLogger(__name__)
IDLE_S = 10.0  # between the reports of a replica that has nothing to do
UNASKED_S = 5.0  # a coordinator that asks no more has given the replica up, or is gone
GIVEN_UP = Failure("given up on request", fatal=False, abandoned=True)


class Runner(Protocol):
    """What is needed of ``ShardRunner``."""

    @property
    def trouble(self) -> str: ...

    @property
    def times(self) -> StageTimes: ...

    def start(
        self, shard: Shard, attempt_id: str, on_images: Callable[[int], None]
    ) -> Future[Attempt]: ...

    def abandon(self, attempt_ids: Collection[str], within_s: float) -> None: ...


@dataclass
class _Work:
    """An assignment. next: the shard to begin next. left: shards without an outcome. running: the
    images of its attempts that are under way, by attempt."""

    order: Order
    next: int
    left: int
    runner: Runner | None = None
    running: dict[str, int] = field(default_factory=dict)

    @property
    def job_id(self) -> str:
        return self.order.workload.job_id


class Worker:
    """Begins the shards of its orders, and keeps outcomes until ``report`` takes them.

    runner: that of a job. settle: called with the outcomes of attempts as soon as they are known;
    attempts that the coordinator is to commit are settled there. Thread-safe. Begins no shard once
    nobody has asked for a report for a while: a replica that is cut off does not go on for long.
    """

    def __init__(
        self, runner: Callable[[Workload], Runner], settle: Callable[[dict[str, Outcome]], None]
    ) -> None:
        self._runner = runner
        self._settle = settle
        self._changed = threading.Condition()
        self._works: list[_Work] = []  # of which a shard has no outcome, by assignment
        self._newest = -1  # assignment
        self._unheard_of: set[int] = set()  # assignments that were given up before they came
        self._done: list[Done] = []
        self._failed: list[Failed] = []
        self._uncommitted: list[tuple[int, CommitRecord]] = []
        self._records: list[CommitRecord] = []
        self._urgent = False  # somebody waits for what there is to report
        self._asking = 0  # calls of ``report`` that wait
        self._reported_s = monotonic_s()
        threading.Thread(target=self._work, name="device", daemon=True).start()

    def assign(self, order: Order) -> None:
        """Make these shards after those of earlier orders."""
        with self._changed:
            work = _Work(order, order.first, order.stop - order.first)
            insort(self._works, work, key=lambda work: work.order.assignment_id)
            self._newest = max(self._newest, order.assignment_id)
            if order.assignment_id in self._unheard_of:
                self._unheard_of.discard(order.assignment_id)
                self._drop_rest(work)
            self._changed.notify_all()

    def abandon(self, assignment_id: int, within_s: float = 0.0) -> None:
        """Give up the assignment's shards: those not begun at once, others where they are, but for
        those that will be generated within so many seconds."""
        with self._changed:
            work = next((w for w in self._works if w.order.assignment_id == assignment_id), None)
            if work is None:
                if assignment_id > self._newest:
                    self._unheard_of.add(assignment_id)
                return
            runner, running = work.runner, list(work.running)
            self._drop_rest(work)
        if runner is not None and running:
            runner.abandon(running, within_s)

    def report(self, within_s: float) -> Report:
        """What has happened since the last report: at once if it is urgent, else so many seconds
        after the last one, or later while there is nothing to do."""
        with self._changed:
            self._asking += 1
            self._changed.notify_all()  # the device may have waited for that
            while not self._urgent:
                pause_s = within_s if self._works else max(within_s, IDLE_S)
                left_s = self._reported_s + pause_s - monotonic_s()
                if left_s <= 0:
                    break
                self._changed.wait(left_s)
            report = Report(
                self._progress(),
                merged(self._done),
                tuple(self._failed),
                tuple(self._uncommitted),
                tuple(self._records),
            )
            self._done, self._failed, self._uncommitted, self._records = [], [], [], []
            self._urgent, self._reported_s = False, monotonic_s()
            self._asking -= 1
            return report

    def _progress(self) -> dict[str, Progress]:
        under_way: dict[str, Progress] = {}
        for work in self._works:
            if work.runner is not None:
                before = under_way.get(work.job_id, Progress(0, ""))
                images = before.images + sum(work.running.values())
                runner = work.runner
                under_way[work.job_id] = Progress(images, runner.trouble, runner.times)
        for _, record in self._uncommitted:  # by the next report the coordinator has counted them
            before = under_way.get(record.job_id, Progress(0, ""))
            under_way[record.job_id] = replace(before, images=before.images + record.rows)
        return under_way

    def _work(self) -> None:
        """Begin one shard after the other, for ever."""
        while True:
            with self._changed:
                while (work := self._next()) is None:
                    self._changed.wait()
                shard, work.next = work.next, work.next + 1
                prefix = work.order.attempts
                attempt_id = f"{prefix}{uuid.uuid4().hex[len(prefix) :]}"
                work.running[attempt_id] = 0
                try:
                    work.runner = work.runner or self._runner(work.order.workload)
                except Exception as error:  # no memory for it, say
                    self._ended(work, shard, attempt_id, failure_of(error))
                    continue
            self._begin(work, work.runner, shard, attempt_id)

    def _next(self) -> _Work | None:
        """The assignment of which a shard is to begin next; None for now."""
        if not self._asking and monotonic_s() > self._reported_s + UNASKED_S:
            return None
        return next((work for work in self._works if work.next < work.order.stop), None)

    def _begin(self, work: _Work, runner: Runner, shard: int, attempt_id: str) -> None:
        def count(images: int) -> None:
            work.running[attempt_id] += images

        try:
            attempt = runner.start(work.order.workload.shard(shard), attempt_id, count)
        except BaseException as error:  # whatever it is, the next shard may do
            self._ended(work, shard, attempt_id, failure_of(error))
        else:
            attempt.add_done_callback(
                lambda done: self._ended(work, shard, attempt_id, _outcome(done))
            )

    def _ended(self, work: _Work, shard: int, attempt_id: str, outcome: Attempt | Failure) -> None:
        """The attempt's outcome is known."""
        assignment_id = work.order.assignment_id
        settled: Outcome | None = "lost" if isinstance(outcome, Failure) else outcome.outcome
        if settled is not None:
            try:
                self._settle({attempt_id: settled})
            except Exception:  # only the energy log lacks it
                logger.exception("what became of an attempt could not be passed on")
        with self._changed:
            if isinstance(outcome, Failure):
                failed = Failed(assignment_id, work.job_id, shard, shard + 1, outcome)
                self._failed.append(failed)
            elif outcome.outcome is not None:
                self._done.append(done_of(assignment_id, outcome.record, outcome.outcome))
                if outcome.outcome == "won" and has_checkpoints(work.order.workload.num_shards):
                    self._records.append(outcome.record)
            else:
                self._uncommitted.append((assignment_id, outcome.record))
            del work.running[attempt_id]
            self._answered(work, 1, urgent=isinstance(outcome, Failure))

    def _drop_rest(self, work: _Work) -> None:
        """Give up the shards that have not begun."""
        first, work.next = work.next, work.order.stop
        if first < work.order.stop:
            failed = Failed(work.order.assignment_id, work.job_id, first, work.order.stop, GIVEN_UP)
            self._failed.append(failed)
            self._answered(work, work.order.stop - first, urgent=True)

    def _answered(self, work: _Work, shards: int, *, urgent: bool) -> None:
        work.left -= shards
        if not work.left:  # there is room for another assignment
            self._works.remove(work)
            urgent = True
        if urgent:
            self._urgent = True
            self._changed.notify_all()


def _outcome(attempt: Future[Attempt]) -> Attempt | Failure:
    error = attempt.exception()
    return attempt.result() if error is None else failure_of(error)


def failure_of(error: BaseException) -> Failure:
    """Why an attempt, or the start of a replica, did not work."""
    if isinstance(error, Abandoned):
        return GIVEN_UP
    if isinstance(error, Retryable):  # for so long that making the images again would not help
        return Failure(f"the store stayed away for {PATIENCE_S:.0f} s: {error}", fatal=True)
    if isinstance(error, UserError | Un0Error | Fatal):
        return Failure(str(error), fatal=True)
    logger.error("an attempt failed", exc_info=error)  # of this attempt alone: it is retried
    return Failure(plain(error), fatal=False)
