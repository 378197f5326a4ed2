"""Shards on replicas: begun, heard of while they run, and told of to the scheduler."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any

from ray.exceptions import RayError

from cluster.actors.job_run import JobRun
from cluster.actors.reasons import reason_of
from cluster.actors.replica import Failure, Heartbeat
from cluster.actors.seat import Seat, usage_of
from cluster.clock import monotonic_s
from cluster.errors import ClusterError
from cluster.pipeline.shard_runner import Attempt
from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.events import Event, ShardFailed, ShardsCommitted
from cluster.types import CommitRecord

SILENCE_S = 60.0  # a replica that says nothing for this long is given up: Ray does not see SIGSTOP


class ShardRuns:
    """Runs the shards of assignments that are in seats' queues.

    put: tells the scheduler. do: carries work out beside everything else, and gives the seat's
    replica up if that breaks. give_up: of a replica's life that does not answer, and why.
    """

    def __init__(
        self,
        jobs: Mapping[str, JobRun],
        put: Callable[[Event], None],
        do: Callable[[Coroutine[Any, Any, None], Seat], None],
        give_up: Callable[[Seat, str, int], Awaitable[None]],
    ) -> None:
        self._jobs = jobs
        self._put = put
        self._do = do
        self._give_up = give_up

    def pump(self, seat: Seat) -> None:
        """Begin shards while the replica has room for more."""
        while seat.actor is not None and (begin := seat.next_shard()) is not None:
            assignment, shard = begin
            job = self._jobs.get(assignment.job_id)
            if job is None:
                continue
            attempt_id = uuid.uuid4().hex
            seat.running[attempt_id] = begin
            self._do(self._run(seat, job, assignment, shard, attempt_id), seat)

    def revoke(self, seat: Seat, assignment_id: int, job_id: str) -> None:
        """Take an assignment back: shards that have begun are abandoned where they are, but
        for those that are done within the grace of a job that stops."""
        shards, attempts = seat.revoke(assignment_id)
        for shard in shards:
            self._put(ShardFailed(monotonic_s(), seat.replica_id, assignment_id, job_id, shard,
                                  "given up on request", revoked=True))  # fmt: skip
        if attempts and seat.actor is not None:
            job = self._jobs.get(job_id)
            stops = job is not None and job.to_stop is not None
            within_s = max(0.0, job.grace.shards_s - monotonic_s()) if job and stops else 0.0
            seat.actor.abandon.remote(job_id, attempts, within_s)
        self.pump(seat)

    async def _run(
        self, seat: Seat, job: JobRun, assignment: RunAssignment, shard: int, attempt_id: str
    ) -> None:
        life, flight = seat.life, (seat.replica_id, shard)
        job.joined(seat.replica_id, host_name=seat.host_name, hardware=seat.hardware,
                   provider=seat.provider)  # fmt: skip
        outcome: Heartbeat | Attempt | Failure = Failure("it ended without a word", fatal=False)
        try:
            run = seat.actor.run.options(num_returns="streaming")
            async for outcome in _heard(run.remote(job.workload, shard, attempt_id)):
                if isinstance(outcome, Heartbeat):
                    job.in_flight[flight] = outcome.images
                    job.update(seat.replica_id, note=outcome.trouble)
        except (RayError, TimeoutError) as error:
            reason = reason_of(error, f"silent for {SILENCE_S:.0f} s")
            return await self._give_up(seat, reason, life)
        finally:
            job.in_flight.pop(flight, None)
            seat.running.pop(attempt_id, None)
        assert seat.meter is not None
        if isinstance(outcome, Attempt):
            await self._committed(seat, job, assignment, outcome)
        else:
            seat.meter.settle(attempt_id, "lost")
            self._failed(seat, job, assignment, shard, outcome)
        return self.pump(seat)

    def _failed(
        self,
        seat: Seat,
        job: JobRun,
        assignment: RunAssignment,
        shard: int,
        outcome: Heartbeat | Failure,
    ) -> None:
        failure = outcome if isinstance(outcome, Failure) else Failure("it broke off", fatal=False)
        job.update(seat.replica_id, note=failure.reason)
        job.retries += not failure.abandoned
        self._put(
            ShardFailed(
                monotonic_s(),
                seat.replica_id,
                assignment.assignment_id,
                assignment.job_id,
                shard,
                failure.reason,
                failure.fatal,
                failure.abandoned,
            )
        )

    async def _committed(
        self, seat: Seat, job: JobRun, assignment: RunAssignment, attempt: Attempt
    ) -> None:
        record, outcome = attempt.record, attempt.outcome
        if outcome is None:  # a store without conditional writes: this process is its one writer
            try:
                outcome = await asyncio.to_thread(job.commit, record)
            except ClusterError as error:
                return self._failed(seat, job, assignment, record.shard, Failure(str(error), False))
            if outcome is None:
                reason = "a newer run has taken the job over"
                return self._failed(seat, job, assignment, record.shard, Failure(reason, True))
        assert seat.meter is not None
        seat.meter.settle(record.attempt_id, outcome)
        if outcome == "won":
            job.committed(seat.replica_id, record)
        return self._put(_commit_event(seat, assignment, record))


def _commit_event(seat: Seat, assignment: RunAssignment, record: CommitRecord) -> ShardsCommitted:
    return ShardsCommitted(
        monotonic_s(),
        seat.replica_id,
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
