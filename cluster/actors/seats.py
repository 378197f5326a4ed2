"""Room for replicas: what nodes tell of themselves, and how they are cut into seats."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.options import FleetOptions, ReplicaOptions
from cluster.actors.room import room_for
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
from un0.machine import Cpus, Memory, cpus_here, memory_here

logger = logging.getLogger(__name__)
TELL_S = 60.0
HARDWARE_LABEL = "un0/hardware"  # a node's operator may name its class


@dataclass(frozen=True)
class Place:
    """One seat: a node's device, or some of its CPU threads, for one replica."""

    replica_id: str
    node_id: str
    host_name: str
    hardware: str
    options: ReplicaOptions


@dataclass(frozen=True)
class NodeFacts:
    """What a node says of itself. gpus: (name, UUID) of each that its driver sees. cpus, memory:
    what processes may use there, which can be less than Ray believes."""

    host_name: str
    cpu: str
    gpus: tuple[tuple[str, str], ...]
    cpus: Cpus
    memory: Memory


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
        logger.info("no GPU is told of: %s", refused.reason)
    return tuple(found)


async def facts_of(node_id: str) -> NodeFacts | None:
    """What a node tells of itself; None if it does not answer."""
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    try:
        answer = describe_node.options(scheduling_strategy=pinned).remote()
        facts: NodeFacts = await asyncio.wait_for(answer, TELL_S)
    except (RayError, TimeoutError) as error:
        logger.warning("node %s does not tell of itself: %s", node_id, error)
        return None
    return facts


def view_of(node: dict[str, Any], facts: NodeFacts) -> NodeView:
    """A node as it is shown."""
    devices = tuple(f"{name} ({uuid})" for name, uuid in facts.gpus) or (facts.cpu,)
    return NodeView(str(node["NodeID"]), facts.host_name, dict(node.get("Labels") or {}), devices)


def places_on(
    node: dict[str, Any], facts: NodeFacts, fleet: FleetOptions, taken: int
) -> list[Place]:
    """The seats of a node: one per GPU that Ray has there, else of CPU threads, no more than its
    processes may use and its memory holds. Who asks for a number of replicas gets it.

    taken: seats that the fleet has already, where it is limited to some number.
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
    own_name = (node.get("Labels") or {}).get(HARDWARE_LABEL)
    places = []
    for number in range(room):
        gpu = facts.gpus[number][0] if number < len(facts.gpus) else "GPU"
        hardware = own_name or hardware_class(
            gpu if share.device == "cuda" else None, share.threads, facts.cpu, cpus_each
        )
        name = f"{facts.host_name}-{node_id[:6]}-{number}"
        if fleet.own:
            name = f"replica-{taken + number}"
        places.append(Place(name, node_id, facts.host_name, hardware, share))
    return places


def share_of(gpus: int, cpus: int) -> ReplicaOptions:
    """How a node is cut: by GPU, else into CPU replicas."""
    if gpus:
        return ReplicaOptions("cuda", GPU_THREADS)
    return ReplicaOptions("cpu", replica_threads(cpus))
