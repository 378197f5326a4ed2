"""Whose work goes first: priority, deadlines, and owners who share."""

from __future__ import annotations

from cluster.scheduler.policy import Policy
from tests.support.fleetworld import FleetWorld, profile

GPU = profile("gpu", 100, 200)


def world_of_one() -> FleetWorld:
    world = FleetWorld([GPU])
    world.join("gpu")
    return world


def assigned_images(world: FleetWorld, owners: dict[str, str]) -> dict[str, int]:
    given = dict.fromkeys(owners.values(), 0)
    for assignment in world.assigned():
        given[owners[assignment.job_id]] += assignment.stop - assignment.first
    return given


def test_priority_goes_before_all_else() -> None:
    world = world_of_one()
    world.submit("low", shards=100)
    world.submit("high", shards=100, priority=1)
    world.play(60)
    assert {assignment.job_id for assignment in world.assigned()[2:]} == {"high"}


def test_the_earlier_deadline_goes_first() -> None:
    world = world_of_one()
    world.submit("later", shards=100, deadline_s=2000.0, objective="deadline")
    world.submit("sooner", shards=100, deadline_s=1000.0, objective="deadline")
    world.play(150)
    assert "sooner" in world.ended
    assert "later" not in world.ended


def test_owners_share_however_many_jobs_each_has() -> None:
    world = world_of_one()
    owners = {}
    for number in range(6):
        owners[f"j{number}"] = "many" if number else "one"
        world.submit(f"j{number}", shards=1000, owner=owners[f"j{number}"])
    world.play(600)
    given = assigned_images(world, owners)
    assert 0.7 < given["one"] / given["many"] < 1.4


def test_a_newcomer_is_not_owed_what_others_had_before() -> None:
    world = world_of_one()
    world.submit("old", shards=10_000, owner="old")
    world.play(1000)
    seen = len(world.assigned())
    world.submit("new", shards=10_000, owner="new")
    world.play(2000)
    recent = [assignment.job_id for assignment in world.assigned()[seen:]]
    assert 0.3 < recent.count("old") / len(recent) < 0.7


def test_another_job_does_not_cost_an_owner_what_is_owed_to_it() -> None:
    world = world_of_one()
    world.submit("busy", shards=10_000, owner="a", priority=1)
    world.submit("waits", shards=10_000, owner="b")
    world.play(500)
    owed = world.state.core.served_j["a"] - world.state.core.served_j["b"]
    world.submit("waits-too", shards=10, owner="b")
    assert world.state.core.served_j["a"] - world.state.core.served_j["b"] >= owed > 0


def test_a_job_without_a_deadline_has_its_turn_however_many_with_one_come() -> None:
    world = FleetWorld([GPU], Policy(turn_s=300))
    world.join("gpu")
    world.submit("whenever", shards=3)
    number = 0
    while "whenever" not in world.ended:
        assert world.now_s < 600, "it waits for ever"
        number += 1  # as much as the hardware can do, and more
        world.submit(f"due-{number}", shards=20, deadline_s=world.now_s + 15)
        world.play(world.now_s + 10)
    assert number > 20
