"""How a node is cut into slots by what its processes may use, whatever Ray believes."""

from __future__ import annotations

from typing import Any

import pytest

from cluster.actors.discovery import NodeFacts, slots_on
from cluster.actors.options import FleetOptions, ReplicaOptions
from cluster.actors.room import REPLICA_BYTES, RUN_BYTES, check_memory, room_for
from cluster.actors.slot import SlotSpec
from cluster.errors import UserError
from cluster.hardware.identify import hardware_class
from cluster.scheduler.priors import prior_profile
from cluster.storage.object_store import StoreConfig
from un0.machine import Cpus, Memory

PLENTY = Memory(2**40, 2**40, "that this machine has")
STORE = StoreConfig("file:///nowhere")


def facts(cpus: float, memory: Memory = PLENTY, *gpus: tuple[str, str]) -> NodeFacts:
    return NodeFacts("host", "Test CPU", gpus, Cpus(cpus, 32, "CPU affinity"), memory)


def node(**resources: float) -> dict[str, Any]:
    return {"NodeID": "abcdef0123", "Resources": resources, "Labels": {}}


def slots(fleet: FleetOptions, cpus: float, memory: Memory = PLENTY) -> list[SlotSpec]:
    return slots_on(node(CPU=32.0), facts(cpus, memory), fleet, 0)


SHARED = FleetOptions(STORE, "cluster", own=False)


@pytest.mark.parametrize(
    ("usable", "count", "threads"), [(32, 8, 4), (2, 1, 2), (1, 1, 1), (6.5, 2, 3), (64, 8, 4)]
)
def test_never_more_threads_than_cpus_that_may_be_used(
    usable: float, count: int, threads: int
) -> None:
    found = slots(SHARED, usable)
    assert [spec.options for spec in found] == [ReplicaOptions("cpu", threads)] * count
    assert {spec.hardware for spec in found} == {f"cpu: Test CPU x{threads}"}


def test_a_slow_slot_is_of_a_class_of_its_own() -> None:
    """What is measured under a quota says nothing of whole CPUs, and the other way round."""
    (half,) = slots(SHARED, 0.5)
    assert half.hardware == "cpu: Test CPU (0.5 CPUs) x1"
    asked_for = FleetOptions(STORE, "local", ReplicaOptions("cpu", 1), 4)
    crowded = slots(asked_for, 2)
    assert [spec.hardware for spec in crowded] == ["cpu: Test CPU (0.5 CPUs) x1"] * 4
    assert hardware_class(None, 2, "Test CPU", 2.5) == "cpu: Test CPU x2"
    assert prior_profile(half.hardware, "rev/fp32", 1.0, batch_size=32).standby.idle_w > 0


def test_memory_bounds_the_slots_and_leaves_one() -> None:
    assert len(slots(SHARED, 32, Memory(3 * REPLICA_BYTES, 2**40, ""))) == 3
    assert len(slots(SHARED, 32, Memory(0, 2**40, ""))) == 1


def test_gpus_are_slots_whatever_the_cpus() -> None:
    gpus = [("H100", "GPU-1"), ("H100", "GPU-2")]
    found = slots_on(node(CPU=32.0, GPU=2.0), facts(1, Memory(0, 1, ""), *gpus), SHARED, 0)
    assert [(spec.options.device, spec.hardware) for spec in found] == [("cuda", "H100")] * 2


def test_gpus_own_the_cpus_of_their_node_by_speed() -> None:
    two = [("NVIDIA H100 80GB HBM3", "GPU-1"), ("NVIDIA H100 80GB HBM3", "GPU-2")]
    found = slots_on(node(CPU=32.0, GPU=2.0), facts(32, PLENTY, *two), SHARED, 0)
    assert [spec.options.encoders for spec in found] == [16, 16]
    assert [spec.options.resources() for spec in found] == [{"num_cpus": 16, "num_gpus": 1}] * 2
    unlike = [two[0], ("NVIDIA L4", "GPU-3")]
    fast, slow = slots_on(node(CPU=16.0, GPU=2.0), facts(16, PLENTY, *unlike), SHARED, 0)
    assert fast.options.encoders > 3 * slow.options.encoders >= 3
    assert fast.options.encoders + slow.options.encoders == 16


def test_a_run_that_memory_has_no_room_for_is_refused_before_ray_starts() -> None:
    small = Memory(580_000_000, 600_000_000, "that its cgroup allows")
    with pytest.raises(
        UserError, match=r"0\.58 GB are free of the 0\.6 GB that its cgroup"
    ) as found:
        check_memory(small)
    assert "needs about 1.2 GB" in str(found.value)
    assert "docker run --memory" in str(found.value)
    check_memory(Memory(RUN_BYTES + REPLICA_BYTES, 2**40, ""))


def test_a_larger_model_leaves_room_for_fewer() -> None:
    memory = Memory(RUN_BYTES + 4 * REPLICA_BYTES, 2**40, "")
    assert room_for(memory, 0, run_bytes=RUN_BYTES) == 4
    assert room_for(memory, REPLICA_BYTES, run_bytes=RUN_BYTES) == 2
    assert room_for(memory, 10**12, run_bytes=RUN_BYTES) == 1
