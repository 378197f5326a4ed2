"""A rush that comes every day: whoever knows of it keeps clear of the dearest hardware."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cluster.scenario.arrivals import Arrival
from cluster.scheduler.forecast import DAY_S, Forecast
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.state import SchedulerState
from cluster.simulation.books import SimulationResult
from cluster.simulation.simulator import simulate
from tests.support.simulated import fleet, hardware, job


def at_watts(power_w: float, kind: dict[str, Any]) -> dict[str, Any]:
    return {**kind, "points": [{**kind["points"][0], "power_w": power_w}]}


FLEET = fleet(  # 1, 2 and 50 joules an image
    at_watts(50.0, hardware("cheap", 2, 50.0)),
    at_watts(100.0, hardware("costly", 10, 50.0)),
    at_watts(1000.0, hardware("last", 1, 20.0)),
)
FAST = Policy(assignment_s=120.0, replan_s=60.0)  # to simulate, and as good here


def day(first_s: float = 0.0) -> list[Arrival]:
    """A job every ten minutes, to be done in two hours: half of what all but the last device do;
    but from ten to four, a fifth more than that."""
    arrivals = []
    for minute in range(0, 1440, 10):
        images = 432_000 if 600 <= minute < 960 else 180_000
        arrivals.append(job(f"j{minute}", first_s + 60.0 * minute, images, 7200.0, 1000))
    return arrivals


def run(forecast: Forecast) -> SimulationResult:
    scheduler = SchedulerState(ProfileBook(FLEET.profiles()), FAST, forecast=forecast)
    return simulate(FLEET, day(), scheduler, horizon_s=DAY_S + 7200)


@pytest.mark.slow
def test_knowing_the_day_keeps_the_dearest_hardware_asleep() -> None:
    past = [(a.at_s, a.job) for number in range(-3, 0) for a in day(number * DAY_S)]
    cold, warm = run(Forecast()), run(Forecast.of(past))
    assert warm.missed == 0 < cold.missed
    assert cold.energy_by_hardware_j["last"]["job"] > 0
    assert warm.energy_by_hardware_j["last"]["job"] == 0
    assert warm.energy_j < cold.energy_j


@pytest.mark.slow
def test_a_rush_that_does_not_come_costs_next_to_nothing() -> None:
    """The same work is done, only sooner."""
    rush = [(a.at_s, replace(a.job, images=2 * a.job.images)) for a in day(-DAY_S)]
    cold, misled = run(Forecast()), run(Forecast.of(rush))
    assert misled.missed <= cold.missed
    assert misled.energy_j < 1.1 * cold.energy_j
