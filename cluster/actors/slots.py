"""The fleet's nodes and slots, and the replicas in the slots: woken, parked, lost, closed."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Sequence
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.knowledge import Knowledge
from cluster.actors.node_meter import RunMeter, meter_on
from cluster.actors.options import FleetOptions
from cluster.actors.outcomes import Failure
from cluster.actors.reasons import reason_of
from cluster.actors.replica import Ready, Replica
from cluster.actors.slot import SlotHandle, SlotSpec, usage_of
from cluster.clock import monotonic_s
from cluster.progress import NodeView
from cluster.scheduler.events import (
    NodeLost,
    ReplicaAwake,
    ReplicaJoined,
    ReplicaLost,
    ReplicaParked,
)
from cluster.stage_times import StageTimes
from cluster.states import ReplicaState
from cluster.stopping import left_s

logger = logging.getLogger(__name__)
START_S = 300.0  # to get a process, load the model and warm up
CLOSE_S = 10.0
NODE_GONE = "its node is gone"


class Slots:
    """What the fleet consists of, and what is done to it. What happens is put on the events.

    nodes: by id. handles: by replica id. meters: by node.
    """

    def __init__(
        self,
        options: FleetOptions,
        run_id: str,
        jobs: JobBook,
        knowledge: Knowledge,
        events: EventQueue,
    ) -> None:
        self._options = options
        self._run_id = run_id
        self._jobs = jobs
        self._knowledge = knowledge
        self._events = events
        self.nodes: dict[str, NodeView] = {}
        self.handles: dict[str, SlotHandle] = {}
        self.meters: dict[str, RunMeter] = {}

    def __getitem__(self, replica_id: str) -> SlotHandle:
        return self.handles[replica_id]

    def get(self, replica_id: str) -> SlotHandle | None:
        """The slot; None if its node is gone."""
        return self.handles.get(replica_id)

    def on(self, node_id: str) -> list[SlotHandle]:
        """The slots of the node."""
        return [slot for slot in self.handles.values() if slot.spec.node_id == node_id]

    @property
    def any_awake(self) -> bool:
        return any(slot.actor is not None for slot in self.handles.values())

    def join(self, node: NodeView, specs: Sequence[SlotSpec]) -> list[ReplicaJoined]:
        """A node has come, with these slots: the events to be put."""
        self.nodes[node.node_id] = node
        for spec in specs:
            self.handles[spec.replica_id] = SlotHandle(spec)
            self._knowledge.believe_all(spec)
        return [
            ReplicaJoined(monotonic_s(), spec.replica_id, spec.node_id, spec.hardware)
            for spec in specs
        ]

    def lose_node(self, node_id: str) -> None:
        """A node has gone, with its meter and all its replicas."""
        if self.nodes.pop(node_id, None) is None:
            return
        self.meters.pop(node_id, None)
        for slot in self.on(node_id):
            self._note_lost(slot, NODE_GONE)
            slot.vacate()
        self._events.put(NodeLost(monotonic_s(), node_id, NODE_GONE))

    def forget(self, node_id: str) -> None:
        """Forget a lost node's slots: the scheduler names them no more."""
        for slot in self.on(node_id):
            del self.handles[slot.replica_id]

    async def wake(self, slot: SlotHandle, model: str) -> None:
        """Start a replica with the model: ReplicaAwake follows, or ReplicaLost."""
        for job in self._jobs.of_model(model):
            job.update(slot.replica_id, state=ReplicaState.WAKING)
        slot.expect(model)
        incarnation, slot.actor = slot.incarnation, self._replica(slot, model)
        try:
            ready = await self._started(slot, slot.actor)
        except (RayError, TimeoutError) as error:
            reason = reason_of(error, f"not ready within {START_S:.0f} s")
            return await self.give_up(slot, reason, incarnation)
        if isinstance(ready, Failure):
            return self.lose(slot, ready.reason, fatal=ready.fatal, incarnation=incarnation)
        jobs = self._jobs.of_model(model)
        if jobs:  # whatever has become of the replica meanwhile, its start took this
            jobs[0].started(ready.startup)
        if not slot.is_at(incarnation):
            return None
        slot.host_name, slot.hardware = ready.host_name, ready.hardware
        slot.provider = ready.provider
        for job in jobs:
            job.joined(slot)
        usage = usage_of(0, ready.load_s, ready.startup)
        return self._events.put(ReplicaAwake(monotonic_s(), slot.replica_id, model, usage))

    def _replica(self, slot: SlotHandle, model: str) -> Any:
        load, _ = self._knowledge.models[model]
        pinned = NodeAffinitySchedulingStrategy(slot.spec.node_id, soft=False)
        return Replica.options(  # type: ignore[attr-defined]
            scheduling_strategy=pinned, **slot.spec.options.resources()
        ).remote(slot.name, load, self._options.store, slot.spec.options)

    async def _started(self, slot: SlotHandle, actor: Any) -> Ready | Failure:
        node_id = await asyncio.wait_for(actor.node_id.remote(), START_S)
        options = self._options
        meter = await meter_on(node_id, options.store, options.cluster_id, self._run_id)
        slot.meter = self.meters[node_id] = meter
        ready: Ready | Failure = await asyncio.wait_for(actor.start.remote(meter), START_S)
        return ready

    async def park(self, slot: SlotHandle) -> None:
        """End the replica: ReplicaParked follows."""
        await self.close(slot)
        self._events.put(ReplicaParked(monotonic_s(), slot.replica_id))

    async def close(self, slot: SlotHandle) -> None:
        """End the replica: all that it did is settled."""
        actor = slot.actor
        if actor is None:
            return
        for job in list(self._jobs.values()):  # one may come or end meanwhile
            await self.end_job(slot, job)
            if slot.replica_id in job.replicas:
                job.update(slot.replica_id, state=ReplicaState.PARKED)
        if slot.meter is not None:
            slot.meter.lose(slot.name)
        slot.vacate()
        ray.kill(actor, no_restart=True)

    async def close_all(self) -> None:
        """End every replica, and leave the meters."""
        await asyncio.gather(*(self.close(slot) for slot in self.handles.values()))
        await self.leave_meters(math.inf)

    async def end_job(self, slot: SlotHandle, job: JobRun) -> None:
        """Close the job's part of the replica, unless it has none."""
        if slot.actor is None or slot.replica_id not in job.replicas:
            return None
        if job.view(slot.replica_id).state == ReplicaState.WAKING:  # no answer before it is up
            return None
        try:
            times: StageTimes = await asyncio.wait_for(
                slot.actor.end_job.remote(job.workload.job_id), left_s(job.grace.log_s, CLOSE_S)
            )
        except (RayError, TimeoutError) as error:
            logger.warning("a replica did not close: %s", reason_of(error, "no answer"))
            return job.closed(slot.replica_id)
        return job.closed(slot.replica_id, times)

    async def give_up(self, slot: SlotHandle, reason: str, incarnation: int) -> None:
        """A replica does not answer: it is lost, or all of its node, which is no fault of the
        hardware that others are of too."""
        node_id, name = slot.spec.node_id, slot.name
        nodes = await asyncio.to_thread(ray.nodes)
        if any(node["NodeID"] == node_id and node["Alive"] for node in nodes):
            at_work = await slot.meter.at_work(name) if slot.meter and slot.assigned else None
            self.lose(slot, reason, incarnation=incarnation, at_work=at_work)
        else:
            self.lose_node(node_id)

    def lose(
        self,
        slot: SlotHandle,
        reason: str,
        *,
        fatal: bool = False,
        incarnation: int | None = None,
        at_work: tuple[str, int] | None = None,
    ) -> None:
        """The replica is given up. incarnation: of which one; one that is gone already stays so.
        at_work: (job id, shard) that its device was at; None: unknown."""
        if not slot.is_at(slot.incarnation if incarnation is None else incarnation):
            return
        ray.kill(slot.actor, no_restart=True)
        self._note_lost(slot, reason)
        slot.vacate()
        self._events.put(
            ReplicaLost(monotonic_s(), slot.replica_id, reason, fatal=fatal, at_work=at_work)
        )

    def _note_lost(self, slot: SlotHandle, reason: str) -> None:
        """Tell its meter and its jobs."""
        if slot.meter is not None:
            slot.meter.lose(slot.name)
        for job_id, job in self._jobs.items():
            if slot.replica_id in job.replicas:
                job.update(slot.replica_id, state=ReplicaState.LOST, note=reason)
                job.closed(slot.replica_id)
                job.retries += job_id == slot.job_at_work and not job.stopping

    async def leave_meters(self, until_s: float) -> None:
        """The run is over: have its nodes' energy logs written."""
        for reply in [meter.leave() for meter in self.meters.values()]:
            try:
                written = await asyncio.wait_for(reply, left_s(until_s, CLOSE_S))
            except (RayError, TimeoutError) as error:
                logger.warning("a node's meter did not close: %s", reason_of(error, "no answer"))
                continue
            if not written:
                logger.warning("the end of a node's energy log could not be written")
