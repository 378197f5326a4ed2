"""Every decision can be asked why."""

from __future__ import annotations

from cluster.scheduler.explain import KEPT, Decision, DecisionQueue
from tests.support.fleetworld import FleetWorld, profile


def decisions(world: FleetWorld, kind: str) -> list[Decision]:
    return [d for d in world.state.take_decisions() if d.kind == kind]


FLEET = [profile("cheap", 100, 50, load_j=10), profile("costly", 100, 90, load_j=10)]


def world_of_two() -> FleetWorld:
    world = FleetWorld(FLEET)
    world.join("cheap")
    world.join("costly")
    return world


def test_a_plan_names_its_rivals_and_what_was_decided_of_them() -> None:
    world = world_of_two()
    world.submit(shards=10)
    plan = decisions(world, "plan")[-1]
    assert [(r.hardware, r.verdict) for r in plan.rivals] == [
        ("cheap", "1 used"),
        ("costly", "not needed"),
    ]
    cheap, costly = (rival.cost for rival in plan.rivals)
    assert 0.5 < cheap < costly
    assert (plan.demand, plan.why) == ("m for energy", "no deadline: cheaply")


def test_a_plan_tells_what_deadlines_ask_for() -> None:
    world = world_of_two()
    world.submit(shards=100, deadline_s=200.0)
    assert decisions(world, "plan")[-1].why == "deadlines ask for 57.1 images/s"


def test_a_assignment_says_where_and_what_it_is_expected_to_take() -> None:
    world = world_of_two()
    world.submit(shards=10)
    world.run()
    assignment = decisions(world, "lease")[0]
    assert (assignment.job_id, assignment.hardware, assignment.replica_id) == ("j", "cheap", "r0")
    assert assignment.first == 0
    assert assignment.stop is not None
    assert assignment.predicted_s == assignment.stop * 1.0
    assert assignment.predicted_j == assignment.stop * 50.0


def test_a_held_job_is_noted_once_and_by_name() -> None:
    world = FleetWorld([profile("gpu", 100, 200, idle_w=50, load_s=20, load_j=20_000)])
    world.join("gpu")
    world.submit(shards=10, deadline_s=5000.0)
    world.play(2000)
    (hold,) = decisions(world, "hold")
    assert hold.job_id == "j"


def test_wakes_parks_and_pauses_have_their_reasons() -> None:
    world = world_of_two()
    world.submit(shards=10, energy_budget_j=120.0)
    world.play(8000)
    made = world.state.take_decisions()
    assert {d.kind for d in made} >= {"wake", "park", "pause", "lease", "plan"}
    assert all(d.why for d in made)


def test_only_the_newest_decisions_are_kept() -> None:
    diary = DecisionQueue()
    for number in range(KEPT + 10):
        diary.note(Decision("plan", 0.0, number, str(number)))
    kept = diary.take()
    assert len(kept) == KEPT
    assert kept[-1].why == str(KEPT + 9)
    assert diary.take() == []
