"""Energy budgets: a job pauses before it would exceed its own, and says so."""

from __future__ import annotations

import pytest

from cluster.scheduler.events import ShardFailed, ShardsCommitted
from tests.support.fleetworld import FleetWorld, profile

GPU = profile("gpu", 100, 200)  # 2 J an image, 200 J a shard


def budgeted(budget_j: float) -> FleetWorld:
    world = FleetWorld([GPU])
    world.join("gpu")
    world.submit(shards=100, energy_budget_j=budget_j)
    return world


def test_a_job_pauses_before_its_budget_is_exceeded() -> None:
    world = budgeted(2100.0)
    world.run()
    end = world.ended["j"]
    assert end.state == "paused"
    assert "budget" in end.reason
    assert "2100.0 J" in end.reason
    made = len(world.committed["j"])
    assert 200 * made <= 2100 < 200 * (made + 2)


def test_a_budget_that_suffices_pauses_nothing() -> None:
    world = budgeted(100 * 200 * 1.11)
    world.run()
    assert world.ended["j"].state == "completed"


def test_work_of_unknown_energy_counts_as_predicted() -> None:
    world = budgeted(1e6)
    world.play(0.5)
    assignment = world.assignments["r0"][0]
    for _ in range(2):  # the message comes twice
        world.send(
            ShardsCommitted(
                1, "r0", assignment.assignment_id, "j", assignment.first, assignment.first + 1
            )
        )
    assert world.state.jobs["j"].spent_j == pytest.approx(200)


@pytest.mark.parametrize(("revoked", "spent_j"), [(False, 200.0), (True, 0.0)])
def test_a_failed_attempt_of_unknown_energy_counts_as_predicted(
    revoked: bool, spent_j: float
) -> None:
    world = budgeted(1e6)
    world.play(0.5)
    assignment = world.assignments["r0"][0]
    world.send(
        ShardFailed(
            1, "r0", assignment.assignment_id, "j", assignment.first, "broken", revoked=revoked
        )
    )
    assert world.state.jobs["j"].spent_j == pytest.approx(spent_j)


def test_a_lost_assignment_counts_for_the_time_it_ran() -> None:
    world = budgeted(1e6)
    world.play(5.0)
    began = world.state.jobs["j"].spent_j
    world.lose("r0")
    assert world.state.jobs["j"].spent_j - began == pytest.approx(5 * 200, rel=0.01)
