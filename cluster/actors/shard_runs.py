"""Shards on replicas: begun, followed while they run, and reported to the scheduler."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

from ray.exceptions import RayError

from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.reasons import plain, reason_of
from cluster.actors.replica import Failure, Heartbeat
from cluster.actors.slot import SlotHandle, Work, usage_of
from cluster.actors.slots import Slots
from cluster.actors.tasks import Tasks
from cluster.clock import monotonic_s
from cluster.errors import ClusterError
from cluster.pipeline.publisher import Attempt
from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.events import ShardFailed, ShardsCommitted
from cluster.types import CommitRecord

SILENCE_S = 60.0  # a replica that says nothing for this long is given up: Ray does not see SIGSTOP


class ShardRuns:
    """Runs the shards of assignments that are in slots' queues."""

    def __init__(self, jobs: JobBook, slots: Slots, events: EventQueue, tasks: Tasks) -> None:
        self._jobs = jobs
        self._slots = slots
        self._events = events
        self._tasks = tasks

    def begin(self, slot: SlotHandle, assignment: RunAssignment) -> None:
        """Run the assignment after the slot's earlier ones."""
        slot.queue.append(Work(assignment, assignment.first))
        self.pump(slot)

    def pump(self, slot: SlotHandle) -> None:
        """Begin shards while the replica has room for more."""
        while slot.actor is not None and (begin := slot.next_shard()) is not None:
            assignment, shard = begin
            job = self._jobs.get(assignment.job_id)
            if job is None:
                continue
            attempt_id = uuid.uuid4().hex
            slot.running[attempt_id] = begin
            self._tasks.do(
                self._run(slot, job, assignment, shard, attempt_id),
                broke=lambda error: self._slots.lose(slot, plain(error)),
            )

    def revoke(self, slot: SlotHandle, assignment_id: int, job_id: str) -> None:
        """Take an assignment back: shards that have begun are abandoned where they are, but
        for those that are done within the grace of a job that stops."""
        shards, attempts = slot.revoke(assignment_id)
        for shard in shards:
            failed = ShardFailed(
                monotonic_s(), slot.replica_id, assignment_id, job_id, shard, "given up on request",
                revoked=True,
            )  # fmt: skip
            self._events.put(failed)
        if attempts and slot.actor is not None:
            job = self._jobs.get(job_id)
            stops = job is not None and job.stopping
            within_s = max(0.0, job.grace.shards_s - monotonic_s()) if job and stops else 0.0
            slot.actor.abandon.remote(job_id, attempts, within_s)
        self.pump(slot)

    async def _run(
        self, slot: SlotHandle, job: JobRun, assignment: RunAssignment, shard: int, attempt_id: str
    ) -> None:
        incarnation, flight = slot.incarnation, (slot.replica_id, shard)
        job.joined(slot)
        outcome: Heartbeat | Attempt | Failure = Failure("it ended without a word", fatal=False)
        try:
            run = slot.actor.run.options(num_returns="streaming")
            async for outcome in _heard(run.remote(job.workload, shard, attempt_id)):
                if isinstance(outcome, Heartbeat):
                    job.in_flight[flight] = outcome.images
                    job.update(slot.replica_id, note=outcome.trouble)
        except (RayError, TimeoutError) as error:
            reason = reason_of(error, f"silent for {SILENCE_S:.0f} s")
            return await self._slots.give_up(slot, reason, incarnation)
        finally:
            job.in_flight.pop(flight, None)
            slot.running.pop(attempt_id, None)
        assert slot.meter is not None
        if isinstance(outcome, Attempt):
            await self._committed(slot, job, assignment, outcome)
        else:
            slot.meter.settle(attempt_id, "lost")
            self._failed(slot, job, assignment, shard, outcome)
        return self.pump(slot)

    def _failed(
        self,
        slot: SlotHandle,
        job: JobRun,
        assignment: RunAssignment,
        shard: int,
        outcome: Heartbeat | Failure,
    ) -> None:
        failure = outcome if isinstance(outcome, Failure) else Failure("it broke off", fatal=False)
        job.update(slot.replica_id, note=failure.reason)
        job.retries += not failure.abandoned
        self._events.put(
            ShardFailed(
                monotonic_s(),
                slot.replica_id,
                assignment.assignment_id,
                assignment.job_id,
                shard,
                failure.reason,
                failure.fatal,
                failure.abandoned,
            )
        )

    async def _committed(
        self, slot: SlotHandle, job: JobRun, assignment: RunAssignment, attempt: Attempt
    ) -> None:
        record, outcome = attempt.record, attempt.outcome
        if outcome is None:  # a store without conditional writes: this process is its one writer
            try:
                outcome = await asyncio.to_thread(job.commit, record)
            except ClusterError as error:
                return self._failed(slot, job, assignment, record.shard, Failure(str(error), False))
            if outcome is None:
                reason = "a newer run has taken the job over"
                return self._failed(slot, job, assignment, record.shard, Failure(reason, True))
        assert slot.meter is not None
        slot.meter.settle(record.attempt_id, outcome)
        if outcome == "won":
            job.committed(slot.replica_id, record)
        return self._events.put(_commit_event(slot, assignment, record))


def _commit_event(
    slot: SlotHandle, assignment: RunAssignment, record: CommitRecord
) -> ShardsCommitted:
    return ShardsCommitted(
        monotonic_s(),
        slot.replica_id,
        assignment.assignment_id,
        assignment.job_id,
        record.shard,
        record.shard + 1,
        usage_of(record.rows, record.generate_s, record.energy),
    )


async def _heard(reports: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """What the replica reports; TimeoutError when it says nothing for too long."""
    while True:
        try:
            reference = await asyncio.wait_for(anext(reports), SILENCE_S)
        except StopAsyncIteration:
            return
        yield await asyncio.wait_for(reference, SILENCE_S)
