"""Finding out what unknown hardware takes: bounded, one at a time, and written down."""

from __future__ import annotations

from dataclasses import replace

from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.events import CapChanged
from cluster.scheduler.policy import Policy
from tests.support.fleetworld import FleetWorld, profile

KNOWN = profile("known", 100, 200)  # 2 J
HOPEFUL = profile(
    "hopeful", 100, 250, samples=0, quality="estimated", bounds_j=(1.0, 4.0), load_j=50.0
)


def probing(*, shards: int = 10_000, policy: Policy | None = None, **request: object) -> FleetWorld:
    world = FleetWorld([KNOWN, HOPEFUL], policy or Policy())
    for hardware in ("known", "hopeful", "hopeful"):
        world.join(hardware)
    world.submit(shards=shards, **request)
    return world


def probes(world: FleetWorld) -> list[RunAssignment]:
    return [assignment for assignment in world.assigned() if assignment.probe]


def test_hardware_that_may_be_cheaper_is_probed_once_enough_was_spent() -> None:
    world = probing()
    world.play(100)
    assert not probes(world)  # 2% of what was spent does not pay for a probe yet
    world.play(2000)
    assert len(probes(world)) == 1
    assert world.state.core.book.profile("hopeful", "m").curve[0].samples == 1


def test_probes_stay_within_their_share() -> None:
    policy = Policy(probe_share=0.02)
    hopefuls = [replace(HOPEFUL, hardware=f"h{number}") for number in range(5)]
    world = FleetWorld([KNOWN, *hopefuls], policy)
    for found in (KNOWN, *hopefuls):
        world.join(found.hardware)
    world.submit(shards=10_000)
    for until_s in range(50, 5000, 50):
        world.play(until_s)
        core = world.state.core
        assert core.probed_j <= policy.probe_share * core.spent_j
    assert len(probes(world)) == 5
    predicted_j = sum(d.predicted_j or 0 for d in world.state.take_decisions() if d.kind == "probe")
    assert predicted_j <= world.state.core.probed_j


def test_a_shard_that_is_too_big_for_a_probe_is_not_used_for_one() -> None:
    """One shard takes 100 s on it: far more than a probe's five seconds."""
    world = probing(shards=100, shard_images=10_000)
    world.play(1500)
    assert world.state.core.probed_j <= 0.02 * world.state.core.spent_j


def test_work_near_its_deadline_is_not_used_to_probe() -> None:
    world = probing(shards=2000, deadline_s=1000.0)
    world.play(1500)
    assert not probes(world)


def test_only_jobs_that_go_for_energy_are_used_to_probe() -> None:
    world = probing(objective="cost")
    world.play(2000)
    assert not probes(world)


def test_a_replica_that_was_woken_for_work_that_is_gone_is_no_probe() -> None:
    world = FleetWorld([KNOWN, profile("other", 100, 200)])
    world.join("known")
    world.submit("short", shards=1, objective="throughput")
    world.awake("r0")
    world.join("other")
    world.submit("more", shards=50, objective="throughput")
    world.play(1000)
    assert not probes(world)


def warm_world(cap_w: float | None, policy: Policy) -> FleetWorld:
    """Idle replicas with a point that was never tried, and work for cheaper hardware."""
    base = profile("warm", 100, 250)
    untried = profile(
        "warm",
        500,
        1500,
        samples=0,
        quality="estimated",
        bounds_j=(0.5, 4.0),
        faster=((501, 1600),),
    )
    warm = replace(base, curve=(*base.curve, untried.curve[0]))
    world = FleetWorld([KNOWN, warm], policy)
    for hardware in ("warm", "warm"):
        world.join(hardware)
    world.submit("first", shards=60)
    world.run()
    assert len(world.woken()) == 2
    world.join("known")
    world.send(CapChanged(world.now_s, cap_w))
    world.submit("second", shards=10_000)
    world.now_s += 1
    world.tick()
    return world


def test_a_probe_of_a_warm_replica_keeps_to_the_power_cap() -> None:
    world = warm_world(1700.0, Policy(probe_share=1.0))
    for until_s in range(50, 2000, 50):
        world.play(until_s)
        assert world.state.power_w <= 1700
    assert not probes(world)


def test_a_probe_of_a_warm_replica_keeps_to_its_share() -> None:
    world = warm_world(None, Policy())
    for until_s in range(10, 2000, 10):
        world.play(until_s)
        assert world.state.core.probed_j <= 0.02 * world.state.core.spent_j
        assert bool(probes(world)) == (world.state.core.probed_j > 0)
    assert probes(world)


def test_one_replica_is_probed_at_a_time() -> None:
    world = warm_world(None, Policy(probe_share=1.0))
    world.stuck |= {"r0", "r1"}
    world.play(100)
    assert len(probes(world)) == 1
