"""The loop of a coordinator: what happens goes to the scheduler, what it commands is carried out.

Events come from ``discovery`` (nodes), ``slots`` (replicas), ``shard_runs`` (shards), ``jobs``
(submissions and stops) and this file (caps and drains), by way of one queue.
"""

from __future__ import annotations

import asyncio
import math
import uuid

from cluster.actors.discovery import Discovery
from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.jobs import Jobs
from cluster.actors.knowledge import Knowledge
from cluster.actors.options import FleetOptions, RunRequest
from cluster.actors.shard_runs import ShardRuns
from cluster.actors.slots import Slots
from cluster.actors.tasks import Tasks
from cluster.clock import monotonic_s
from cluster.progress import FleetView, SlotView, Snapshot
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
from cluster.scheduler.events import CapChanged, Event, NodeDraining, NodeLost
from cluster.scheduler.policy import Policy
from cluster.scheduler.state import SchedulerState
from cluster.stopping import Grace
from cluster.storage.open import open_store

KEEP_S = 30.0  # between looks at what was learned and decided


class Controller:
    """One coordinator's fleet and jobs."""

    def __init__(self, options: FleetOptions) -> None:
        store = open_store(options.store, probe=False)
        run_id = uuid.uuid4().hex
        self._cap_w = options.cap_w
        self._knowledge = Knowledge(store, options, run_id)
        # With replicas of its own a run uses all of them: whoever asked for them wants them used
        policy = Policy(start_share=math.inf) if options.own else Policy()
        self._scheduler = SchedulerState(
            self._knowledge.book, policy, options.cap_w, self._knowledge.forecast
        )
        self._events = EventQueue()
        self._tasks = Tasks()
        self._book = JobBook()
        self._slots = Slots(options, run_id, self._book, self._knowledge, self._events)
        self._discovery = Discovery(options, self._slots, self._events)
        self._shards = ShardRuns(self._book, self._slots, self._events, self._tasks)
        self._jobs = Jobs(
            store,
            self._book,
            self._slots,
            self._knowledge,
            self._events,
            tasks=self._tasks,
            own=options.own,
        )
        self._visited_s = monotonic_s()

    async def main(self) -> None:
        """Handle events for ever."""
        for work in (self._discovery.watch(), self._keep()):
            self._tasks.do(work)
        while True:
            self._handle(await self._events.get())

    def _handle(self, events: tuple[Event, ...]) -> None:
        commands = self._scheduler.handle(*events)
        for event in events:
            if isinstance(event, NodeLost):  # not before: earlier commands may name its slots
                self._slots.forget(event.node_id)
        self._knowledge.decisions.append(self._scheduler.take_decisions())
        for command in commands:
            self._carry_out(command)

    def _carry_out(self, command: Command) -> None:
        match command:
            case WakeReplica(replica_id, model):
                self._tasks.do(self._slots.wake(self._slots[replica_id], model))
            case ParkReplica(replica_id):
                self._tasks.do(self._slots.park(self._slots[replica_id]))
            case RunAssignment(replica_id=replica_id):
                self._shards.begin(self._slots[replica_id], command)
            case RevokeAssignment(assignment_id, replica_id, job_id):
                if (slot := self._slots.get(replica_id)) is not None:
                    self._shards.revoke(slot, assignment_id, job_id)
            case FinishJob(job_id):
                self._tasks.do(self._jobs.end(self._book[job_id], command))
            case TellUser(job_id, reason):
                self._book[job_id].note = reason
            case RemindMe(at_s):
                self._events.remind(at_s)

    async def _keep(self) -> None:
        """Write down what was learned and decided, now and then, for ever."""
        while True:
            await asyncio.sleep(KEEP_S)
            await asyncio.to_thread(self._knowledge.write_down)

    async def submit(self, run: RunRequest) -> JobRun:
        """Take the job on, unless it is running already."""
        return await self._jobs.submit(run)

    def begin(self, run: RunRequest) -> bool:
        """Take on a job of the service; False: not yet, ask again."""
        return self._jobs.begin(run)

    def snapshots(self) -> dict[str, Snapshot]:
        """The service's jobs: under way, or over and not forgotten yet."""
        return self._jobs.snapshots()

    def forget(self, job_id: str, epoch: int) -> None:
        """The job's server has seen how its run ended."""
        self._jobs.forget(job_id, epoch)

    def stop(self, job_id: str, grace: Grace, epoch: int | None = None) -> None:
        """End the job soon, resumable."""
        self._jobs.stop(job_id, grace, epoch)

    def drain(self, node_id: str, within_s: float | None) -> None:
        """Give the node no more work; what would end later than within_s is run elsewhere."""
        until_s = None if within_s is None else monotonic_s() + within_s
        self._events.put(NodeDraining(monotonic_s(), node_id, until_s))

    def cap(self, watts: float | None) -> None:
        """What all replicas may draw together from now on; None is no cap."""
        self._cap_w = watts
        self._events.put(CapChanged(monotonic_s(), watts))

    def visited(self) -> None:
        """Somebody needs this coordinator."""
        self._visited_s = monotonic_s()

    @property
    def deserted_for_s(self) -> float:
        """Seconds since there was a job, a visit or an awake replica."""
        if self._book or self._slots.any_awake:
            self.visited()
        return monotonic_s() - self._visited_s

    def view(self) -> FleetView:
        """Nodes, slots and jobs now."""
        now_s = monotonic_s()
        slots = []
        for slot in self._scheduler.slots.values():
            spec = self._slots[slot.replica_id].spec
            slots.append(
                SlotView(
                    slot.replica_id,
                    slot.node_id,
                    spec.host_name,
                    slot.hardware,
                    slot.state,
                    slot.model,
                    slot.why,
                    now_s - slot.since_s,
                    len(slot.assignments),
                    slot.power_mw / 1000,
                    slot.draining,
                )
            )
        epochs = {job_id: job.epoch for job_id, job in self._book.items()}
        return FleetView(
            max(epochs.values(), default=0),
            tuple(self._slots.nodes.values()),
            tuple(slots),
            tuple(self._book),
            self._scheduler.power_w,
            self._cap_w,
            epochs,
        )

    async def close(self) -> None:
        """End every replica, leave the meters, and keep what was learned."""
        await self._slots.close_all()
        await asyncio.to_thread(self._knowledge.write_down)
