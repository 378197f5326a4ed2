"""Assignments on replicas: handed over whole, heard of in reports, and told to the scheduler.

A report is one answer of one call that waits on the replica, whatever has happened there: the
coordinator asks for the next when it has taken in the last, so that it hears of the more shards at
once the more it has to do.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import Any

from ray.exceptions import RayError

from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.outcomes import Done, Failed, Failure, Order, Progress, Report, done_of, merged
from cluster.actors.reasons import plain, reason_of
from cluster.actors.slot import SlotHandle, usage_of
from cluster.actors.slots import Slots
from cluster.actors.tasks import Tasks
from cluster.clock import monotonic_s
from cluster.errors import ClusterError
from cluster.ledger.usage import Outcome
from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.events import ShardFailed, ShardsCommitted
from cluster.types import CommitRecord

logger = logging.getLogger(__name__)
SILENCE_S = 60.0  # a replica that says nothing for this long is given up: Ray does not see SIGSTOP
HEARTBEAT_S = 0.5  # between a replica's reports, unless somebody waits for one
LONGEST_S = 10.0  # between them in a large fleet: many fit into the silence
REPORTS_PER_S = 100.0  # of all replicas, but for urgent ones: a millisecond of CPU each
READ_BACK_S = 10.0  # for a lost replica's last commits
NOTHING = Progress(0, "")


class ShardRuns:
    """Has replicas run assignments."""

    def __init__(self, jobs: JobBook, slots: Slots, events: EventQueue, tasks: Tasks) -> None:
        self._jobs = jobs
        self._slots = slots
        self._events = events
        self._tasks = tasks
        self._listening = 0  # to so many replicas

    def begin(self, slot: SlotHandle, assignment: RunAssignment) -> None:
        """Have the replica run the assignment after its earlier ones."""
        job = self._jobs.get(assignment.job_id)
        if job is None or slot.actor is None:  # the scheduler is about to hear of it
            return
        first, stop = assignment.first, assignment.stop
        slot.assign(assignment)
        job.joined(slot)
        order = Order(assignment.assignment_id, job.workload, first, stop, slot.attempts)
        self._do(slot, self._hand_over(slot, order))
        if slot.heard != slot.incarnation:
            slot.heard = slot.incarnation
            self._do(slot, self._listen(slot))

    def revoke(self, slot: SlotHandle, assignment_id: int, job_id: str) -> None:
        """Take an assignment back: shards that have begun are abandoned where they are, but
        for those that are done within the grace of a job that stops."""
        if slot.actor is None or assignment_id not in slot.assigned:
            return
        job = self._jobs.get(job_id)
        stops = job is not None and job.stopping
        within_s = max(0.0, job.grace.shards_s - monotonic_s()) if job and stops else 0.0
        slot.actor.abandon.remote(assignment_id, within_s)

    def _do(self, slot: SlotHandle, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.do(work, broke=lambda error: self._slots.lose(slot, plain(error)))

    async def _hand_over(self, slot: SlotHandle, order: Order) -> None:
        incarnation = slot.incarnation
        try:
            await asyncio.wait_for(slot.actor.assign.remote(order), SILENCE_S)
        except (RayError, TimeoutError) as error:
            await self._give_up(slot, incarnation, error)

    async def _listen(self, slot: SlotHandle) -> None:
        """Take in what the replica reports, until it is gone."""
        incarnation, actor = slot.incarnation, slot.actor
        self._listening += 1
        try:
            while slot.is_at(incarnation):
                within_s = min(max(HEARTBEAT_S, self._listening / REPORTS_PER_S), LONGEST_S)
                async with asyncio.timeout(SILENCE_S):  # cheaper than wait_for: no task
                    report = await actor.report.remote(within_s)
                self._take(slot, incarnation, report)
        except (RayError, TimeoutError) as error:
            await self._give_up(slot, incarnation, error)
        finally:
            self._listening -= 1

    def _take(self, slot: SlotHandle, incarnation: int, report: Report) -> None:
        if slot.is_at(incarnation):
            for job_id in slot.under_way.keys() | report.under_way.keys():
                if (job := self._jobs.get(job_id)) is not None:
                    progress = report.under_way.get(job_id, NOTHING)
                    job.under_way(slot.replica_id, progress)
            slot.under_way = report.under_way
        for record in report.records:
            if (job := self._jobs.get(record.job_id)) is not None:
                job.keep(record)
        self._events.put(
            *(self._committed(slot, done) for done in report.done),
            *(event for failed in report.failed for event in self._failed(slot, failed)),
        )
        if report.uncommitted:
            self._do(slot, self._commit(slot, report.uncommitted))

    def _committed(self, slot: SlotHandle, done: Done) -> ShardsCommitted:
        slot.answered(done.assignment_id, done.first, done.stop)
        if done.won and (job := self._jobs.get(done.job_id)) is not None:
            job.committed(slot.replica_id, done)
        return ShardsCommitted(
            monotonic_s(),
            slot.replica_id,
            done.assignment_id,
            done.job_id,
            done.first,
            done.stop,
            usage_of(done.images, done.generate_s, done.energy),
        )

    def _failed(self, slot: SlotHandle, failed: Failed) -> list[ShardFailed]:
        slot.answered(failed.assignment_id, failed.first, failed.stop)
        failure = failed.failure
        if (job := self._jobs.get(failed.job_id)) is not None:
            job.update(slot.replica_id, note=failure.reason)
            job.retries += not failure.abandoned
        return [
            ShardFailed(
                monotonic_s(),
                slot.replica_id,
                failed.assignment_id,
                failed.job_id,
                shard,
                failure.reason,
                failure.fatal,
                failure.abandoned,
            )
            for shard in range(failed.first, failed.stop)
        ]

    async def _commit(
        self, slot: SlotHandle, uncommitted: Sequence[tuple[int, CommitRecord]]
    ) -> None:
        """Commit for a store without conditional writes, whose one writer is this process."""
        meter = slot.meter
        settled: dict[str, Outcome] = {}
        done: list[Done] = []
        failed: list[Failed] = []
        for job_id in {record.job_id for _, record in uncommitted}:
            of_job = [(number, record) for number, record in uncommitted if record.job_id == job_id]
            job = self._jobs.get(job_id)
            if job is None:  # it has ended: what is not committed by then is lost
                settled.update((record.attempt_id, "lost") for _, record in of_job)
                continue
            outcomes = await asyncio.to_thread(_commit_all, job, [record for _, record in of_job])
            for (number, record), outcome in zip(of_job, outcomes, strict=True):
                if isinstance(outcome, Failure):
                    settled[record.attempt_id] = "lost"
                    shard = record.shard
                    failed.append(Failed(number, job_id, shard, shard + 1, outcome))
                else:
                    settled[record.attempt_id] = outcome
                    done.append(done_of(number, record, outcome))
        if meter is not None:
            meter.settle(settled)
        won = {attempt_id for attempt_id, outcome in settled.items() if outcome == "won"}
        records = tuple(record for _, record in uncommitted if record.attempt_id in won)
        self._take(slot, -1, Report(done=merged(done), failed=tuple(failed), records=records))

    async def _give_up(self, slot: SlotHandle, incarnation: int, error: BaseException) -> None:
        """The replica does not answer: it is lost. What it has committed since its last report
        counts, so that no shard is suspected which is done."""
        if slot.given_up == incarnation or not slot.is_at(incarnation):
            return
        slot.given_up = incarnation
        reason = reason_of(error, f"silent for {SILENCE_S:.0f} s")
        try:
            await asyncio.wait_for(self._read_back(slot), READ_BACK_S)
        except TimeoutError:
            logger.warning("what a lost replica committed last is not known yet")
        await self._slots.give_up(slot, reason, incarnation)

    async def _read_back(self, slot: SlotHandle) -> None:
        for number, assigned in list(slot.assigned.items()):
            job = self._jobs.get(assigned.assignment.job_id)
            if job is None:
                continue
            shards = [shard for run in assigned.open for shard in range(*run)]
            records = await asyncio.to_thread(job.read_back, shards, slot.attempts)
            if records and slot.meter is not None:
                slot.meter.settle({record.attempt_id: "won" for record in records})
            done = merged(done_of(number, record, "won") for record in records)
            self._take(slot, -1, Report(done=done, records=tuple(records)))


def _commit_all(job: JobRun, records: Sequence[CommitRecord]) -> list[Outcome | Failure]:
    """Commit each: its outcome, or why it is not committed. Blocks on the store."""
    return [_commit_one(job, record) for record in records]


def _commit_one(job: JobRun, record: CommitRecord) -> Outcome | Failure:
    try:
        outcome = job.commit(record)
    except ClusterError as error:
        return Failure(str(error), fatal=False)
    return outcome or Failure("a newer run has taken the job over", fatal=True)
