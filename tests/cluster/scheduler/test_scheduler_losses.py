"""Replicas that die, shards that kill them, hardware that is no good, and fleets that vanish."""

from __future__ import annotations

import pytest

from cluster.scheduler.commands import TellUser
from cluster.scheduler.events import NodeLost, ReplicaLost
from cluster.scheduler.policy import Policy
from tests.support.fleetworld import FleetWorld, profile

GPU = profile("gpu", 1000, 500)
POLICY = Policy()


def world_of(*hardware: str, awake: bool = True, shards: int = 1000) -> FleetWorld:
    world = FleetWorld([GPU, profile("other", 1000, 400)])
    for kind in hardware:
        world.join(kind)
    world.submit(shards=shards, objective="throughput")
    for name in list(world.waking) if awake else []:
        world.awake(name)
    return world


def test_a_lost_replica_is_replaced_and_its_shards_are_run_again() -> None:
    world = world_of("gpu")
    world.lose("r0")
    world.tick(1)
    assert "r0" in world.waking
    world.run()
    assert world.ended["j"].state == "completed"
    assert sorted(world.committed["j"]) == list(range(1000))


def test_only_the_shard_in_hand_is_suspected() -> None:
    world = world_of("gpu", "gpu")
    world.lose("r0", gone=True)
    assert world.state.jobs["j"].attempts == {0: 1}


def test_a_suspect_is_assigned_alone_and_first_to_other_hardware() -> None:
    world = world_of("gpu", "other")
    world.lose("r0", gone=True)
    for _ in range(POLICY.assignments):  # what it has already
        world.commit("r1")
    assert [(assignment.first, assignment.stop) for assignment in world.assigned("r1")[-1:]] == [
        (0, 1)
    ]


def test_a_suspect_is_assigned_alone_and_last_to_the_same_hardware() -> None:
    world = world_of("gpu", "gpu", shards=300)
    world.lose("r0", gone=True)
    world.run()
    (*_, last) = world.assigned("r1")
    assert (last.first, last.stop) == (0, 1)


def test_a_shard_that_kills_every_replica_is_set_aside_and_the_job_goes_on() -> None:
    world = world_of("gpu", "gpu")
    for _ in range(4000):
        victims = [n for n, own in world.assignments.items() if own and own[0].first == 7]
        head = [n for n, own in world.assignments.items() if own and own[0].first < 7 < own[0].stop]
        if victims:
            world.lose(victims[0], reason="out of memory")
        elif head:
            world.commit(head[0], 7 - world.assignments[head[0]][0].first)
        elif world.waking:
            world.awake(next(iter(world.waking)))
        elif any(world.assignments.values()):
            world.commit(next(n for n, own in world.assignments.items() if own))
        elif world.state.jobs:
            world.tick(1)
    end = world.ended["j"]
    assert end.state == "completed_with_errors"
    assert [(aside.shard, aside.attempts) for aside in end.set_aside] == [(7, POLICY.max_attempts)]
    assert "out of memory" in end.reason
    assert len(set(world.committed["j"])) == 999


def test_a_job_with_too_many_bad_shards_fails() -> None:
    world = world_of("gpu", shards=100)
    for _ in range(1000):
        if "j" not in world.ended and any(world.assignments.values()):
            world.fail("r0", "bad class")
    assert world.ended["j"].state == "failed"
    assert f"{POLICY.max_set_aside + 1} shards were set aside" in world.ended["j"].reason
    assert "bad class" in world.ended["j"].reason


def test_a_single_shard_that_always_fails_ends_the_job_naming_it() -> None:
    world = world_of("gpu", shards=1)
    for _ in range(POLICY.max_attempts):
        world.fail("r0", "disk full")
        world.tick(1)
    assert world.ended["j"].state == "failed"
    assert "shard 0" in world.ended["j"].reason
    assert "disk full" in world.ended["j"].reason


def test_a_fatal_failure_ends_the_job_at_once() -> None:
    world = world_of("gpu")
    world.fail("r0", "wrong model", fatal=True)
    assert (world.ended["j"].state, world.ended["j"].reason) == ("failed", "wrong model")


def test_when_every_replica_dies_while_loading_the_job_fails_with_the_reason() -> None:
    world = world_of("gpu", awake=False)
    losses = 0
    while "j" not in world.ended:
        world.lose("r0", reason="out of memory")
        losses += 1
        world.tick(1)
    assert losses == POLICY.max_fruitless + 1
    reason = "no replica is left; the last loss: out of memory"
    assert (world.ended["j"].state, world.ended["j"].reason) == ("failed", reason)


def test_a_fatal_loss_bars_the_hardware_and_others_do_the_work() -> None:
    world = world_of("gpu", "other", awake=False)
    world.waking.pop("r0")
    world.parked.add("r0")
    world.send(ReplicaLost(world.now_s, "r0", "no kernel for it", fatal=True))
    world.run()
    assert world.ended["j"].state == "completed"
    assert {assignment.replica_id for assignment in world.assigned()} == {"r1"}


def test_losing_half_of_the_fleet_at_once_says_nothing_about_the_hardware() -> None:
    world = world_of(*["gpu"] * 8)
    for number in range(6):
        name = f"r{number}"
        del world.assignments[name]
        world.send(NodeLost(world.now_s, f"node-{name}", "its rack has no power"))
        world.tick(1)
    assert "j" not in world.ended
    world.run()
    assert world.ended["j"].state == "completed"


def test_shards_that_kill_replicas_one_after_the_other_do_not_bar_the_hardware() -> None:
    world = world_of("gpu", shards=10)
    for _ in range(100):
        heads = [own[0] for own in world.assignments.values() if own]
        if heads and heads[0].first < 3:
            world.lose("r0")
        elif heads:
            world.commit("r0")
        world.tick(1)
        for name in list(world.waking):
            world.awake(name)
    assert world.ended["j"].state == "completed_with_errors"
    assert [aside.shard for aside in world.ended["j"].set_aside] == [0, 1, 2]


def test_hardware_that_fails_what_others_do_well_is_barred_before_it_costs_a_shard() -> None:
    world = world_of("gpu", "other")
    for _ in range(20):
        if world.assignments["r0"]:
            world.fail("r0", "broken driver")
    assert ("gpu", "m") in world.state.core.blocklisted
    assert not world.state.jobs["j"].set_aside
    world.run()
    assert world.ended["j"].state == "completed"


@pytest.mark.parametrize("seen", [False, True])
def test_a_job_without_replicas_is_told_and_fails_after_a_while(seen: bool) -> None:
    world = FleetWorld([GPU])
    if seen:  # the only replica goes while it loads, long after the job came
        world.join("gpu")
    world.submit(shards=10)
    if seen:
        world.play(300)
        world.stuck.update(world.assignments)
        world.now_s = 1000.0
        world.submit("late", shards=10, objective="throughput", priority=-1)
        world.submit("big", shards=1000, objective="throughput")
        world.play(1300)
        world.lose("r0", gone=True)
    went_s = world.now_s
    world.play(went_s + POLICY.desert_s - 1)
    name = "late" if seen else "j"
    assert name not in world.ended
    assert TellUser(name, "no live replica can run m") in world.notices
    world.play(went_s + POLICY.desert_s + 1)
    assert world.ended[name].state == "failed"
    assert "no replica is left" in world.ended[name].reason


def test_a_held_job_whose_fleet_vanishes_is_not_forgotten() -> None:
    world = FleetWorld([profile("gpu", 100, 200, idle_w=50, load_s=20, load_j=20_000)])
    world.join("gpu")
    world.submit(shards=10, deadline_s=50_000.0)
    world.play(1000)
    assert not world.woken()
    world.lose("r0", gone=True)
    world.play(1000 + POLICY.desert_s + 1)
    assert world.ended["j"].state == "failed"


def test_a_replica_that_comes_back_in_time_saves_the_job() -> None:
    world = FleetWorld([GPU])
    world.submit(shards=10)
    world.play(100)
    world.join("gpu")
    world.play(1000)
    assert world.ended["j"].state == "completed"


def test_each_time_without_replicas_is_waited_for_anew() -> None:
    world = FleetWorld([GPU])
    world.submit(shards=10)
    world.play(100)
    world.join("gpu")
    world.stuck.add("r0")
    world.play(200)
    world.lose("r0", gone=True)
    world.play(200 + POLICY.desert_s - 10)
    assert "j" not in world.ended
    world.play(200 + POLICY.desert_s + 10)
    assert world.ended["j"].state == "failed"


def test_memory_and_work_do_not_grow_with_the_job() -> None:
    world = FleetWorld([GPU])
    world.join("gpu")
    world.submit(shards=10**12)
    world.play(60)
    job = world.state.jobs["j"]
    assert len(list(job.waiting)) == len(list(job.done)) == 1  # ranges
    assert len(job.assignments) == 2
