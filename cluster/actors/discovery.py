"""Nodes come and go: what they report of themselves, and how they are cut into slots."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.event_queue import EventQueue
from cluster.actors.options import FleetOptions, ReplicaOptions
from cluster.actors.room import room_for
from cluster.actors.slot import SlotSpec
from cluster.actors.slots import Slots
from cluster.hardware.host_share import cpus_per_gpu
from cluster.hardware.identify import (
    GPU_THREADS,
    cpu_name,
    hardware_class,
    host_name,
    replica_threads,
)
from cluster.metering.nvml import NvmlDevice, list_gpus
from cluster.metering.source import Refused
from cluster.progress import NodeView
from cluster.scheduler.events import ReplicaJoined
from un0.machine import Cpus, Memory, cpus_here, memory_here

logger = logging.getLogger(__name__)
ANSWER_S = 60.0
DISCOVER_S = 2.0
HARDWARE_LABEL = "un0/hardware"  # a node's operator may name its class


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself. gpus: (name, UUID) of each that its driver sees. cpus, memory:
    what processes may use there, which can be less than Ray believes."""

    host_name: str
    cpu: str
    gpus: tuple[tuple[str, str], ...]
    cpus: Cpus
    memory: Memory


class Discovery:
    """Looks at the cluster's nodes now and then, and keeps the fleet's slots to what is there."""

    def __init__(self, options: FleetOptions, slots: Slots, events: EventQueue) -> None:
        self._options = options
        self._slots = slots
        self._events = events

    async def watch(self) -> None:
        """Find nodes that have come and gone, for ever."""
        while True:
            try:
                await self._look()
            except Exception:  # a look that failed must not be the last one
                logger.exception("the cluster's nodes could not be looked at")
            await asyncio.sleep(DISCOVER_S)

    async def _look(self) -> None:
        slots = self._slots
        nodes = await asyncio.to_thread(ray.nodes)
        alive = {str(node["NodeID"]): node for node in nodes if node["Alive"]}
        for node_id in slots.nodes.keys() - alive.keys():
            slots.lose_node(node_id)
        new = sorted(alive.keys() - slots.nodes.keys())
        joined: list[ReplicaJoined] = []
        for node_id, facts in zip(new, await asyncio.gather(*map(facts_of, new)), strict=True):
            if facts is not None:
                node = alive[node_id]
                specs = slots_on(node, facts, self._options, len(slots.handles))
                joined += slots.join(view_of(node, facts), specs)
        self._events.put(*joined)


@ray.remote(num_cpus=0, max_retries=1)  # type: ignore[untyped-decorator]
def describe_node() -> NodeFacts:
    """The facts of the node it runs on."""
    return NodeFacts(host_name(), cpu_name(), _gpus(), cpus_here(), memory_here())


def _gpus() -> tuple[tuple[str, str], ...]:
    found = []
    try:
        for uuid in list_gpus():
            if isinstance(uuid, str):
                device = NvmlDevice(uuid)
                found.append((device.device.hw_name, uuid))
                device.close()
    except Refused as refused:
        logger.info("no GPU is reported: %s", refused.reason)
    return tuple(found)


async def facts_of(node_id: str) -> NodeFacts | None:
    """What a node reports of itself; None if it does not answer."""
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    try:
        answer = describe_node.options(scheduling_strategy=pinned).remote()
        facts: NodeFacts = await asyncio.wait_for(answer, ANSWER_S)
    except (RayError, TimeoutError) as error:
        logger.warning("node %s does not report its devices: %s", node_id, error)
        return None
    return facts


def view_of(node: dict[str, Any], facts: NodeFacts) -> NodeView:
    """A node as it is shown."""
    devices = tuple(f"{name} ({uuid})" for name, uuid in facts.gpus) or (facts.cpu,)
    return NodeView(str(node["NodeID"]), facts.host_name, dict(node.get("Labels") or {}), devices)


def slots_on(
    node: dict[str, Any], facts: NodeFacts, fleet: FleetOptions, taken: int
) -> list[SlotSpec]:
    """The slots of a node: one per GPU that Ray has there, else of CPU threads, no more than its
    processes may use and its memory holds. Who asks for a number of replicas gets it.

    taken: slots that the fleet has already, where it is limited to some number.
    """
    resources, node_id = node["Resources"], str(node["NodeID"])
    gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
    if fleet.replicas is None:
        cpus = min(cpus, facts.cpus.usable)
    share = fleet.share or share_of(gpus, cpus)
    room = gpus if share.device == "cuda" else cpus // share.threads
    if fleet.replicas is not None:
        room = min(room, fleet.replicas - taken)
    elif share.device == "cpu":
        room = min(room, room_for(facts.memory, 0))
    cpus_each = facts.cpus.share / max(1, room)
    cards = [name for name, _ in facts.gpus[:gpus]] + ["GPU"] * (gpus - len(facts.gpus))
    encoders = cpus_per_gpu(cpus, cards)
    own_name = (node.get("Labels") or {}).get(HARDWARE_LABEL)
    specs = []
    for number in range(room):
        gpu = share.device == "cuda"
        hardware = own_name or hardware_class(
            cards[number] if gpu else None, share.threads, facts.cpu, cpus_each
        )
        options = replace(share, encoders=encoders[number]) if gpu else share
        name = f"{facts.host_name}-{node_id[:6]}-{number}"
        if fleet.own:
            name = f"replica-{taken + number}"
        specs.append(SlotSpec(name, node_id, facts.host_name, hardware, options))
    return specs


def share_of(gpus: int, cpus: int) -> ReplicaOptions:
    """How a node is cut: by GPU, else into CPU replicas."""
    if gpus:
        return ReplicaOptions("cuda", GPU_THREADS)
    return ReplicaOptions("cpu", replica_threads(cpus))
