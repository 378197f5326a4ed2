"""Finding out what unknown hardware takes: bounded, one at a time, and written down."""

from __future__ import annotations

from dataclasses import replace

from support.fleetworld import FleetWorld, profile

from cluster.scheduler.commands import RunLease
from cluster.scheduler.policy import Policy

KNOWN = profile("known", 100, 200)  # 2 J
HOPEFUL = profile(
    "hopeful", 100, 250, samples=0, quality="estimated", bounds_j=(1.0, 4.0), load_j=50.0
)


def probing(*, shards: int = 10_000, policy: Policy | None = None, **terms: object) -> FleetWorld:
    world = FleetWorld([KNOWN, HOPEFUL], policy or Policy())
    for hardware in ("known", "hopeful", "hopeful"):
        world.join(hardware)
    world.submit(shards=shards, **terms)
    return world


def probes(world: FleetWorld) -> list[RunLease]:
    return [lease for lease in world.leased() if lease.probe]


def test_hardware_that_may_be_cheaper_is_probed_once_enough_was_spent() -> None:
    world = probing()
    world.play(100)
    assert not probes(world)  # 2% of what was spent does not pay for a probe yet
    world.play(2000)
    assert len(probes(world)) == 1
    assert world.state._core.book.profile("hopeful", "m").curve[0].samples == 1


def test_probes_stay_within_their_share() -> None:
    policy = Policy(probe_share=0.02)
    hopefuls = [replace(HOPEFUL, hardware=f"h{number}") for number in range(5)]
    world = FleetWorld([KNOWN, *hopefuls], policy)
    for found in (KNOWN, *hopefuls):
        world.join(found.hardware)
    world.submit(shards=10_000)
    for until_s in range(50, 5000, 50):
        world.play(until_s)
        core = world.state._core
        assert core.probed_j <= policy.probe_share * core.spent_j
    assert len(probes(world)) == 5
    predicted_j = sum(d.predicted_j or 0 for d in world.state.take_decisions() if d.kind == "probe")
    assert predicted_j <= world.state._core.probed_j


def test_a_shard_that_is_too_big_for_a_probe_is_not_used_for_one() -> None:
    """One shard takes 100 s on it: far more than a probe's five seconds."""
    world = probing(shards=100, shard_images=10_000)
    world.play(1500)
    assert world.state._core.probed_j <= 0.02 * world.state._core.spent_j


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


def test_a_probe_keeps_to_the_power_cap() -> None:
    world = FleetWorld([KNOWN, HOPEFUL], cap_w=300)
    world.join("known")
    world.join("hopeful")
    world.submit(shards=10_000)
    world.play(2000)
    assert not probes(world)
    assert world.state.power_w <= 300


def test_an_unknown_point_of_a_warm_replica_is_probed_within_the_cap() -> None:
    gpu = profile("gpu", 100, 200)
    slow = profile("gpu", 50, 80, samples=0, quality="estimated", bounds_j=(0.5, 3.0),
                   faster=((300, 700),))  # fmt: skip
    both = replace(gpu, curve=(*gpu.curve, *slow.curve))
    world = FleetWorld([both], cap_w=250)
    world.join("gpu")
    world.join("gpu")
    for number in range(30):
        world.submit(f"j{number}", shards=50)
        world.play(world.now_s + 60)
        assert world.state.power_w <= 250
