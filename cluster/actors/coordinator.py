"""The coordinator: feeds the scheduler with what happens and carries out what it answers.

It is disposable. All it knows is in the store; a new one goes on from the commits.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Coroutine
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actors.node_meter import RunMeter, meter_on
from cluster.actors.options import RunPlan
from cluster.actors.replica import Closed, Failure, Heartbeat, Ready, Replica
from cluster.clock import monotonic_s
from cluster.energy import ZERO_ENERGY, sum_energy
from cluster.errors import ClusterError
from cluster.execution import Attempt
from cluster.progress import ReplicaView, RunState, Snapshot
from cluster.scheduler.commands import AbandonShards, Command, Finish, RunShard, SpawnReplica
from cluster.scheduler.events import (
    Event,
    ReplicaLost,
    ReplicaReady,
    ShardCommitted,
    ShardFailed,
    Started,
    StopRequested,
)
from cluster.scheduler.state import SchedulerState
from cluster.storage.commit import Outcome, commit, finalise, read_commits, reopen
from cluster.storage.open import open_store
from cluster.types import MISSING_ENERGY, CommitRecord, JobState, Manifest

logger = logging.getLogger(__name__)
SNAPSHOT_S = 0.25
SILENCE_S = 60.0  # a replica that says nothing for this long is given up: Ray does not see SIGSTOP
START_S = 300.0  # to get a process, load the model and warm up
CLOSE_S = 10.0


@ray.remote(num_cpus=0, max_restarts=0, max_task_retries=0)
class Coordinator:
    """Runs one job. ``run`` streams snapshots; ``stop`` ends it early, leaving it resumable."""

    def __init__(self, plan: RunPlan) -> None:
        self._plan = plan
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def run(self) -> AsyncIterator[Snapshot]:
        """Snapshots of the job until it is over; the last one says how it ended."""
        run = _Run(self._plan, self._events)
        main = asyncio.create_task(run.main())
        while not main.done():
            yield run.snapshot()
            await asyncio.wait([main], timeout=SNAPSHOT_S)
        await main
        yield run.snapshot()

    async def stop(self) -> None:
        self._events.put_nowait(StopRequested())


class _Run:
    """The state of one run: the pure scheduler's, and what the displays want to know."""

    def __init__(self, plan: RunPlan, events: asyncio.Queue[Event]) -> None:
        self._plan = plan
        self._workload = plan.workload
        self._store = open_store(plan.store, probe=False)
        self._events = events
        self._actors: dict[str, Any] = {}
        self._run_id = uuid.uuid4().hex
        self._meters: dict[str, RunMeter] = {}  # by node
        self._meter_of: dict[str, RunMeter] = {}  # by replica
        self._views: dict[str, ReplicaView] = {}
        self._in_flight: dict[tuple[str, int], int] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._energy = self._overhead = ZERO_ENERGY
        self._committed_images = 0
        self._run_images = 0
        self._retries = 0
        self._window_s = self._generate_s = 0.0
        self._status: RunState = "starting"
        self._reason = ""
        self._began_s = monotonic_s()
        self._first_ready_s: float | None = None
        self._ended_s: float | None = None

    async def main(self) -> None:
        """Run the job to its end. Errors end it as ``failed``, with the reason."""
        try:
            finish = await self._schedule()
        except ClusterError as error:
            finish = Finish("failed", str(error))
        self._ended_s = monotonic_s()
        await self._close_replicas()
        await self._close_meters()
        for task in self._tasks:
            task.cancel()
        self._status, self._reason = finish.state, finish.reason
        # A run that never had a replica may fail for reasons of its own, while another goes on.
        if finish.state == "completed" or (finish.state == "failed" and self._first_ready_s):
            await self._finalise(finish.state)

    async def _schedule(self) -> Finish:
        await asyncio.to_thread(reopen, self._store, self._workload.job_id)
        commits = await asyncio.to_thread(read_commits, self._store, self._workload.job_id)
        for record in commits.values():
            self._count(record)
        state = SchedulerState(self._workload.num_shards, self._plan.replicas, commits.keys())
        commands = state.handle(Started())
        while True:
            for command in commands:
                if isinstance(command, Finish):
                    return command
                self._carry_out(command)
            commands = state.handle(await self._events.get())

    async def _finalise(self, state: JobState) -> None:
        try:
            manifest = await asyncio.to_thread(self._end_job, state)
        except ClusterError as error:
            self._status = "failed"
            self._reason = "; ".join(filter(None, [self._reason, str(error)]))
            return
        # Attempts that lost to another run's, say, were not counted here.
        self._committed_images, self._energy = manifest.images, manifest.energy

    def _end_job(self, state: JobState) -> Manifest:
        """Write how the job ended. That it is complete overrules another run's failure."""
        job_id, shards = self._workload.job_id, self._workload.num_shards
        while True:
            manifest = finalise(self._store, job_id, state, shards=shards, overhead=self._overhead)
            if state != "completed" or manifest.state == "completed":
                return manifest
            reopen(self._store, job_id)

    def _carry_out(self, command: Command) -> None:
        match command:
            case SpawnReplica(replica_id):
                self._views[replica_id] = ReplicaView(replica_id)
                self._spawn(replica_id, self._start_replica(replica_id))
            case RunShard(replica_id, shard, attempt):
                self._retries += attempt > 1
                self._spawn(replica_id, self._run_shard(replica_id, shard))
            case AbandonShards():
                self._status = "stopping"
                for actor in self._actors.values():  # one that still starts hears of it later
                    actor.abandon.remote()

    def _spawn(self, replica_id: str, work: Coroutine[Any, Any, None]) -> None:
        """Do the work beside everything else; if it breaks, the replica is given up, not the run
        left waiting."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("work for %s broke", replica_id, exc_info=error)
                self._lose(replica_id, f"{type(error).__name__}: {error}")

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)

    async def _start_replica(self, replica_id: str) -> None:
        actor = Replica.options(**self._plan.options.resources()).remote(  # type: ignore[attr-defined]
            replica_id, self._workload, self._plan.store, self._plan.options
        )
        self._actors[replica_id] = actor
        try:
            node_id = await asyncio.wait_for(actor.node_id.remote(), START_S)
            meter = await meter_on(node_id, self._plan.store, self._plan.cluster_id, self._run_id)
            self._meter_of[replica_id] = self._meters[node_id] = meter
            ready: Ready | Failure = await asyncio.wait_for(actor.start.remote(meter), START_S)
        except (RayError, TimeoutError) as error:
            return self._lose(replica_id, _reason(error, f"not ready within {START_S:.0f} s"))
        if isinstance(ready, Failure):
            return self._lose(replica_id, ready.reason, fatal=ready.fatal)
        self._overhead = sum_energy([self._overhead, ready.startup])
        self._first_ready_s = self._first_ready_s or monotonic_s()
        if self._status == "starting":
            self._status = "running"
        self._update(
            replica_id,
            state="live",
            host_name=ready.host_name,
            hardware=ready.hardware,
            provider=ready.provider,
        )
        self._events.put_nowait(ReplicaReady(replica_id))
        return None

    async def _run_shard(self, replica_id: str, shard: int) -> None:
        actor = self._actors.get(replica_id)
        if actor is None:
            return None  # lost meanwhile, which the scheduler knows
        attempt_id = uuid.uuid4().hex
        outcome: Heartbeat | Attempt | Failure = Failure("it ended without a word", fatal=False)
        try:
            reports = actor.run.options(num_returns="streaming").remote(shard, attempt_id)
            async for outcome in _heard(reports):
                if isinstance(outcome, Heartbeat):
                    self._in_flight[replica_id, shard] = outcome.images
                    self._update(replica_id, note=outcome.trouble)
        except (RayError, TimeoutError) as error:
            return self._lose(replica_id, _reason(error, f"silent for {SILENCE_S:.0f} s"))
        finally:
            self._in_flight.pop((replica_id, shard), None)
        if isinstance(outcome, Attempt):
            return await self._committed(replica_id, shard, outcome)
        self._meter_of[replica_id].settle(attempt_id, "lost")
        failure = outcome if isinstance(outcome, Failure) else Failure("it broke off", fatal=False)
        self._update(replica_id, note=failure.reason)
        return self._events.put_nowait(
            ShardFailed(replica_id, shard, failure.reason, failure.fatal)
        )

    async def _committed(self, replica_id: str, shard: int, attempt: Attempt) -> None:
        outcome = attempt.outcome
        if outcome is None:  # a store without conditional writes: this process is its one writer
            try:
                here: Outcome = await asyncio.to_thread(commit, self._store, attempt.record)
            except ClusterError as error:
                return self._events.put_nowait(ShardFailed(replica_id, shard, str(error)))
            outcome = here
        self._meter_of[replica_id].settle(attempt.record.attempt_id, outcome)
        if outcome == "won":
            self._count(attempt.record)
            self._run_images += attempt.record.rows
            view = self._views[replica_id]
            self._update(replica_id, committed_images=view.committed_images + attempt.record.rows)
        return self._events.put_nowait(ShardCommitted(replica_id, shard))

    def _count(self, record: CommitRecord) -> None:
        self._committed_images += record.rows
        self._energy = sum_energy([self._energy, record.energy])

    def _lose(self, replica_id: str, reason: str, *, fatal: bool = False) -> None:
        actor = self._actors.pop(replica_id, None)
        if actor is not None:
            ray.kill(actor, no_restart=True)
        if replica_id in self._meter_of:
            self._meter_of[replica_id].lose(replica_id)
        self._update(replica_id, state="lost", note=reason)
        self._events.put_nowait(ReplicaLost(replica_id, reason, fatal))

    def _update(self, replica_id: str, **changes: Any) -> None:
        self._views[replica_id] = replace(self._views[replica_id], **changes)

    async def _close_replicas(self) -> None:
        live = [name for name, view in self._views.items() if view.state == "live"]
        closing = [self._actors[name].close.remote() for name in live]
        for reply in closing:
            try:
                closed: Closed = await asyncio.wait_for(reply, CLOSE_S)
            except (RayError, TimeoutError) as error:
                logger.warning("a replica did not close: %s", _reason(error, "no answer"))
                continue
            self._window_s += closed.window_s
            self._generate_s += closed.generate_s

    async def _close_meters(self) -> None:
        for reply in [meter.leave() for meter in self._meters.values()]:
            try:
                written = await asyncio.wait_for(reply, CLOSE_S)
            except (RayError, TimeoutError) as error:
                logger.warning("a node's meter did not close: %s", _reason(error, "no answer"))
                continue
            if not written:
                logger.warning("the end of a node's energy log could not be written")

    def snapshot(self) -> Snapshot:
        now_s = self._ended_s or monotonic_s()
        ready_s = self._first_ready_s or now_s
        open_images = dict.fromkeys(self._views, 0)
        for (replica_id, _), images in self._in_flight.items():
            open_images[replica_id] += images
        return Snapshot(
            job_id=self._workload.job_id,
            state=self._status,
            total_images=self._workload.count,
            committed_images=self._committed_images,
            run_images=self._run_images,
            open_images=sum(open_images.values()),
            startup_s=ready_s - self._began_s,
            run_s=now_s - ready_s,
            energy=self._energy if self._committed_images else MISSING_ENERGY,
            overhead=self._overhead if self._first_ready_s else MISSING_ENERGY,
            generate_share=self._generate_s / self._window_s if self._window_s else None,
            replicas=tuple(
                replace(view, open_images=open_images[view.replica_id])
                for view in self._views.values()
            ),
            reason=self._reason,
            retries=self._retries,
        )


async def _heard(reports: AsyncIterator[Any]) -> AsyncIterator[Any]:
    """What the replica reports; TimeoutError when it says nothing for too long."""
    while True:
        try:
            reference = await asyncio.wait_for(anext(reports), SILENCE_S)
        except StopAsyncIteration:
            return
        yield await asyncio.wait_for(reference, SILENCE_S)


def _reason(error: BaseException, silence: str) -> str:
    if isinstance(error, TimeoutError):
        return silence
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
