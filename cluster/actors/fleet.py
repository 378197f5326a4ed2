"""The scheduler's hands on Ray: nodes found, replicas woken and parked, assignments run."""

from __future__ import annotations

import asyncio
import logging
import math
import uuid
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.job_run import JobRun
from cluster.actors.knowledge import Knowledge
from cluster.actors.node_meter import RunMeter, meter_on
from cluster.actors.options import FleetOptions, RunRequest
from cluster.actors.reasons import plain, reason_of
from cluster.actors.replica import Closed, Failure, Load, Ready, Replica
from cluster.actors.seat import Seat, Work, usage_of
from cluster.actors.seats import facts_of, places_on, view_of
from cluster.actors.shard_runs import ShardRuns
from cluster.clock import monotonic_s
from cluster.errors import ClusterError
from cluster.progress import FleetView, NodeView, SeatView
from cluster.scheduler.commands import (
    Command,
    FinishJob,
    ParkReplica,
    RemindMe,
    RevokeAssignment,
    RunAssignment,
    TellUser,
    WakeReplica,
)
from cluster.scheduler.events import (
    CapChanged,
    Event,
    JobSubmitted,
    NodeDraining,
    NodeLost,
    ReplicaAwake,
    ReplicaJoined,
    ReplicaLost,
    ReplicaParked,
    StopRequested,
    Tick,
)
from cluster.scheduler.policy import Policy
from cluster.scheduler.state import SchedulerState
from cluster.states import JobState, ReplicaState
from cluster.stopping import NO_HURRY, Grace, left_s
from cluster.storage.open import open_store
from cluster.types import model_key

logger = logging.getLogger(__name__)
DISCOVER_S = 2.0
KEEP_S = 30.0  # between looks at what was learned and decided
START_S = 300.0  # to get a process, load the model and warm up
CLOSE_S = 10.0


class Fleet:
    """One coordinator's fleet and jobs: an event queue, the scheduler, and what it commands."""

    def __init__(self, options: FleetOptions) -> None:
        self._options = options
        self._store = open_store(options.store, probe=False)
        self._run_id = uuid.uuid4().hex
        self._knowledge = Knowledge(self._store, options, self._run_id)
        # With replicas of its own a run uses all of them: whoever asked for them wants them used
        policy = Policy(start_share=math.inf) if options.own else Policy()
        self._state = SchedulerState(
            self._knowledge.book, policy, options.cap_w, self._knowledge.forecast
        )
        self._events: asyncio.Queue[tuple[Event, ...]] = asyncio.Queue()  # each: what came at once
        self._jobs: dict[str, JobRun] = {}
        self._seats: dict[str, Seat] = {}
        self._nodes: dict[str, NodeView] = {}
        self._meters: dict[str, RunMeter] = {}  # by node
        self._tasks: set[asyncio.Task[None]] = set()
        self._shards = ShardRuns(self._jobs, self._put, self._do, self._give_up)
        self._reminder: asyncio.TimerHandle | None = None
        self._visited_s = monotonic_s()

    async def main(self) -> None:
        """Handle events for ever."""
        for work in (self._discover(), self._keep()):
            self._do(work)
        while True:
            self._handle(await self._events.get())

    async def submit(self, plan: RunRequest) -> JobRun:
        """Take the job on, unless it is running already."""
        job_id = plan.workload.job_id
        if job_id in self._jobs:
            return self._jobs[job_id]
        job = self._jobs[job_id] = JobRun(plan, self._store)
        try:
            done = await asyncio.to_thread(job.open)
        except ClusterError as error:
            await self._end(job, FinishJob(job_id, JobState.FAILED, str(error)))
            return job
        self._knowledge.decisions.begin(job_id)
        workload = plan.workload
        key = model_key(workload.model_rev, workload.precision)
        load = Load(workload.model, workload.model_rev, workload.precision)
        self._knowledge.models[key] = load, plan.facts
        for seat in self._seats.values():
            self._knowledge.believe(seat.place, key)
        request = plan.request
        if request.deadline_s is not None:
            request = replace(request, deadline_s=monotonic_s() + request.deadline_s)
        self._put(JobSubmitted(monotonic_s(), replace(request, model=key), done))
        if job.to_stop is not None:  # asked for before there was a job to stop
            self.stop(job_id, job.grace, cancel=job.to_stop == JobState.CANCELLED)
        return job

    def stop(self, job_id: str, grace: Grace = NO_HURRY, *, cancel: bool) -> None:
        """End the job soon; a run's own fleet keeps to the grace whatever its replicas are at."""
        job = self._jobs.get(job_id)
        if job is not None:
            job.stopping(JobState.CANCELLED if cancel else JobState.STOPPED, grace)
        self._put(StopRequested(monotonic_s(), job_id, cancel))
        if job is not None and self._options.own and grace.shards_s < math.inf:
            for meter in self._meters.values():
                meter.write()  # should even the grace not be granted, most of the log is there
            wait_s = max(0.0, grace.shards_s - monotonic_s())
            asyncio.get_running_loop().call_later(wait_s, self._cut_short, job_id)

    def _cut_short(self, job_id: str) -> None:
        """The shards that the job still has under way would not be done in time."""
        for seat in self._seats.values():
            if any(assignment.job_id == job_id for assignment, _ in seat.running.values()):
                self._lose(seat, "its shards would not have been done before the run had to end")

    def drain(self, node_id: str, within_s: float | None) -> None:
        until_s = None if within_s is None else monotonic_s() + within_s
        self._put(NodeDraining(monotonic_s(), node_id, until_s))

    def cap(self, watts: float | None) -> None:
        self._options = replace(self._options, cap_w=watts)
        self._put(CapChanged(monotonic_s(), watts))

    def visited(self) -> None:
        self._visited_s = monotonic_s()

    @property
    def deserted_for_s(self) -> float:
        """Seconds since there was a job, a visit or an awake replica."""
        if self._jobs or any(seat.actor is not None for seat in self._seats.values()):
            self.visited()
        return monotonic_s() - self._visited_s

    def view(self) -> FleetView:
        """Nodes, seats and jobs now."""
        now_s = monotonic_s()
        seats = []
        for replica in self._state.replicas.values():
            place = self._seats[replica.replica_id].place
            seats.append(
                SeatView(
                    replica.replica_id,
                    replica.node_id,
                    place.host_name,
                    replica.hardware,
                    replica.state,
                    replica.model,
                    replica.why,
                    now_s - replica.since_s,
                    len(replica.assignments),
                    replica.power_mw / 1000,
                    replica.draining,
                )
            )
        epochs = [job.epoch for job in self._jobs.values()]
        return FleetView(
            max(epochs, default=0),
            tuple(self._nodes.values()),
            tuple(seats),
            tuple(self._jobs),
            self._state.power_w,
            self._options.cap_w,
        )

    async def close(self) -> None:
        """End every replica, leave the meters, and keep what was learned."""
        await asyncio.gather(*(self._close_seat(seat) for seat in self._seats.values()))
        await self._leave_meters(math.inf)
        await asyncio.to_thread(self._knowledge.write_down)

    def _put(self, *events: Event) -> None:
        if events:
            self._events.put_nowait(events)

    def _handle(self, events: tuple[Event, ...]) -> None:
        commands = self._state.handle(*events)
        for event in events:
            if isinstance(event, NodeLost):  # not before: earlier commands may name its seats
                for seat in self._seats_on(event.node_id):
                    del self._seats[seat.replica_id]
        self._knowledge.decisions.append(self._state.take_decisions())
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case WakeReplica(replica_id, model):
                self._do(self._wake(self._seats[replica_id], model))
            case ParkReplica(replica_id):
                self._do(self._park(self._seats[replica_id]))
            case RunAssignment(replica_id=replica_id):
                seat = self._seats[replica_id]
                seat.queue.append(Work(command, command.first))
                self._shards.pump(seat)
            case RevokeAssignment(assignment_id, replica_id, job_id):
                if replica_id in self._seats:
                    self._shards.revoke(self._seats[replica_id], assignment_id, job_id)
            case FinishJob(job_id):
                self._do(self._end(self._jobs[job_id], command))
            case TellUser(job_id, reason):
                self._jobs[job_id].note = reason
            case RemindMe(at_s):
                self._remind(at_s)

    def _remind(self, at_s: float) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
        delay_s = max(0.0, at_s - monotonic_s())
        loop = asyncio.get_running_loop()
        self._reminder = loop.call_later(delay_s, lambda: self._put(Tick(max(at_s, monotonic_s()))))

    def _do(self, work: Coroutine[Any, Any, None], seat: Seat | None = None) -> None:
        """Do the work beside everything else; if it breaks, its replica is given up, not the job
        left waiting."""

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                logger.error("work of the coordinator broke", exc_info=error)
                if seat is not None:
                    self._lose(seat, plain(error))

        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(done)

    async def _discover(self) -> None:
        """Find nodes that have come and gone, for ever."""
        while True:
            try:
                await self._look_around()
            except Exception:  # a look that failed must not be the last one
                logger.exception("the cluster's nodes could not be looked at")
            await asyncio.sleep(DISCOVER_S)

    async def _look_around(self) -> None:
        nodes = await asyncio.to_thread(ray.nodes)
        alive = {str(node["NodeID"]): node for node in nodes if node["Alive"]}
        for node_id in self._nodes.keys() - alive.keys():
            self._node_gone(node_id)
        new = sorted(alive.keys() - self._nodes.keys())
        joined: list[Event] = []
        for node_id, facts in zip(new, await asyncio.gather(*map(facts_of, new)), strict=True):
            if facts is None:
                continue
            self._nodes[node_id] = view_of(alive[node_id], facts)
            for place in places_on(alive[node_id], facts, self._options, len(self._seats)):
                self._seats[place.replica_id] = Seat(place)
                for key in self._knowledge.models:
                    self._knowledge.believe(place, key)
                joined.append(
                    ReplicaJoined(monotonic_s(), place.replica_id, node_id, place.hardware)
                )
        self._put(*joined)

    def _node_gone(self, node_id: str) -> None:
        del self._nodes[node_id]
        self._meters.pop(node_id, None)
        for seat in self._seats_on(node_id):
            self._mark_lost(seat, "its node is gone")
            seat.vacate()
        self._put(NodeLost(monotonic_s(), node_id, "its node is gone"))

    def _seats_on(self, node_id: str) -> list[Seat]:
        return [seat for seat in self._seats.values() if seat.place.node_id == node_id]

    async def _wake(self, seat: Seat, model: str) -> None:
        seat.life += 1
        life, name = seat.life, seat.name
        load, _ = self._knowledge.models[model]
        for job in self._jobs_of(model):
            job.update(seat.replica_id, state=ReplicaState.WAKING)
        pinned = NodeAffinitySchedulingStrategy(seat.place.node_id, soft=False)
        actor = Replica.options(  # type: ignore[attr-defined]
            scheduling_strategy=pinned, **seat.place.options.resources()
        ).remote(name, load, self._options.store, seat.place.options)
        seat.actor, seat.model = actor, model
        try:
            node_id = await asyncio.wait_for(actor.node_id.remote(), START_S)
            meter = await meter_on(
                node_id, self._options.store, self._options.cluster_id, self._run_id
            )
            seat.meter = self._meters[node_id] = meter
            ready: Ready | Failure = await asyncio.wait_for(actor.start.remote(meter), START_S)
        except (RayError, TimeoutError) as error:
            reason = reason_of(error, f"not ready within {START_S:.0f} s")
            return await self._give_up(seat, reason, life)
        if isinstance(ready, Failure):
            return self._lose(seat, ready.reason, fatal=ready.fatal, life=life)
        if seat.life != life or seat.actor is None:
            return None
        seat.host_name, seat.hardware = ready.host_name, ready.hardware
        seat.provider = ready.provider
        for number, job in enumerate(self._jobs_of(model)):
            facts = {"host_name": ready.host_name, "hardware": ready.hardware,
                     "provider": ready.provider}  # fmt: skip
            if number:
                job.joined(seat.replica_id, **facts)
            else:
                job.ready(seat.replica_id, ready.startup, **facts)
        usage = usage_of(0, ready.load_s, ready.startup)
        return self._put(ReplicaAwake(monotonic_s(), seat.replica_id, model, usage))

    def _jobs_of(self, model: str) -> list[JobRun]:
        """The jobs of that model, oldest first."""
        return [job for job in self._jobs.values() if job.model == model]

    async def _park(self, seat: Seat) -> None:
        await self._close_seat(seat)
        self._put(ReplicaParked(monotonic_s(), seat.replica_id))

    async def _close_seat(self, seat: Seat) -> None:
        """End the replica: all that it did is settled."""
        actor = seat.actor
        if actor is None:
            return
        for job in self._jobs.values():
            await self._end_job_on(seat, job)
            if seat.replica_id in job.replicas:
                job.update(seat.replica_id, state=ReplicaState.PARKED)
        if seat.meter is not None:
            seat.meter.lose(seat.name)
        seat.vacate()
        ray.kill(actor, no_restart=True)

    async def _end_job_on(self, seat: Seat, job: JobRun) -> None:
        if seat.actor is None or seat.replica_id not in job.replicas:
            return
        if job.view(seat.replica_id).state == "starting":  # it may not answer before it is up
            return
        try:
            closed: Closed = await asyncio.wait_for(
                seat.actor.end_job.remote(job.workload.job_id), left_s(job.grace.log_s, CLOSE_S)
            )
        except (RayError, TimeoutError) as error:
            logger.warning("a replica did not close: %s", reason_of(error, "no answer"))
            return
        job.closed(closed.window_s, closed.generate_s)

    async def _give_up(self, seat: Seat, reason: str, life: int) -> None:
        """A replica does not answer: it is lost, or all of its node, which is no fault of the
        hardware that others are of too."""
        node_id = seat.place.node_id
        nodes = await asyncio.to_thread(ray.nodes)
        if any(node["NodeID"] == node_id and node["Alive"] for node in nodes):
            self._lose(seat, reason, life=life)
        elif node_id in self._nodes:
            self._node_gone(node_id)

    def _lose(
        self, seat: Seat, reason: str, *, fatal: bool = False, life: int | None = None
    ) -> None:
        """The replica is given up. life: of which one; one that is gone already stays so."""
        if seat.actor is None or (life is not None and life != seat.life):
            return
        ray.kill(seat.actor, no_restart=True)
        self._mark_lost(seat, reason)
        seat.vacate()
        self._put(ReplicaLost(monotonic_s(), seat.replica_id, reason, fatal=fatal))

    def _mark_lost(self, seat: Seat, reason: str) -> None:
        if seat.meter is not None:
            seat.meter.lose(seat.name)
        lost = {assignment.job_id for assignment, _ in seat.running.values()}
        for job_id, job in self._jobs.items():
            if seat.replica_id in job.replicas:
                job.update(seat.replica_id, state=ReplicaState.LOST, note=reason)
                job.retries += job_id in lost and job.to_stop is None

    async def _end(self, job: JobRun, finish: FinishJob) -> None:
        """The job is over for the scheduler: close its part of every replica, and write it down."""
        job.stop_clock()
        seats = [self._seats[name] for name in job.replicas if name in self._seats]
        if self._options.own:
            await asyncio.gather(*(self._close_seat(seat) for seat in seats))
            await self._leave_meters(job.grace.log_s)
        else:
            await asyncio.gather(*(self._end_job_on(seat, job) for seat in seats))
        explained = asyncio.wrap_future(self._knowledge.decisions.end(finish.job_id))
        await asyncio.wait([explained], timeout=left_s(job.grace.rest_s, CLOSE_S))
        learned = asyncio.create_task(asyncio.to_thread(self._knowledge.write_down))
        await asyncio.wait([learned], timeout=left_s(job.grace.rest_s))
        await job.end(finish)
        self._jobs.pop(finish.job_id, None)

    async def _leave_meters(self, until_s: float) -> None:
        for reply in [meter.leave() for meter in self._meters.values()]:
            try:
                written = await asyncio.wait_for(reply, left_s(until_s, CLOSE_S))
            except (RayError, TimeoutError) as error:
                logger.warning("a node's meter did not close: %s", reason_of(error, "no answer"))
                continue
            if not written:
                logger.warning("the end of a node's energy log could not be written")

    async def _keep(self) -> None:
        """Write down what was learned and decided, now and then, for ever."""
        while True:
            await asyncio.sleep(KEEP_S)
            await asyncio.to_thread(self._knowledge.write_down)
