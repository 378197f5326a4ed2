"""The bound: never above what a schedule needs, and equal to it where the optimum is known."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cluster.optimise.unit_commitment import lower_bound
from cluster.scenario.arrivals import Arrival
from cluster.scenario.fleet import FleetSpec
from cluster.simulation.baselines import BASELINES
from cluster.simulation.compare import gap_j
from cluster.simulation.simulator import simulate
from tests.support.effort import examples
from tests.support.simulated import baseline, fleet, hardware, job

FREE = {"idle_w": 0.0, "load_s": 0.0}


def point(power_w: float, speed: float = 1.0, cap_w: float | None = None) -> dict[str, object]:
    source = {"text": "made up", "year": 2026}
    return {
        "batch_size": 64,
        "power_cap_w": cap_w,
        "speed": speed,
        "power_w": power_w,
        "source": source,
    }


@st.composite
def fleets(draw: st.DrawFn) -> FleetSpec:
    kinds = []
    for name in ("a", "b", "c")[: draw(st.integers(1, 3))]:
        points = [point(draw(st.floats(30, 300)))]
        if draw(st.booleans()):
            points.append(point(draw(st.floats(30, 100)), 0.7, 25.0))
        kinds.append(
            hardware(
                name,
                draw(st.integers(1, 3)),
                draw(st.floats(5, 200)),
                points=points,
                idle_w=draw(st.floats(0, 30)),
                load_s=draw(st.sampled_from([0.0, 5.0, 90.0])),
                load_w=draw(st.floats(0, 100)),
            )
        )
    return fleet(*kinds)


@st.composite
def days(draw: st.DrawFn) -> list[Arrival]:
    slacks = draw(st.lists(st.sampled_from([150.0, 400.0, 1000.0]), min_size=1, max_size=2))
    return [
        job(
            f"j{i}",
            draw(st.floats(0, 600)),
            draw(st.integers(1, 4000)),
            draw(st.sampled_from(slacks)),
        )
        for i in range(draw(st.integers(1, 6)))
    ]


@settings(max_examples=examples(80))
@given(fleets(), days(), st.sampled_from(sorted(BASELINES)), st.sampled_from([20.0, 60.0, 130.0]))
def test_no_schedule_that_meets_its_deadlines_needs_less(
    spec: FleetSpec, jobs: list[Arrival], name: str, slot_s: float
) -> None:
    result = simulate(spec, jobs, baseline(name, spec), horizon_s=2000.0)
    assume(result.missed == 0)
    bound = lower_bound(spec, jobs, slot_s=slot_s)
    assert bound.late_images < 1e-3 * bound.images
    assert bound.energy_j <= result.energy_j * (1 + 1e-6) + 1e-3


@settings(max_examples=examples(30))
@given(fleets(), days())
def test_finer_slots_and_whole_devices_only_raise_it(spec: FleetSpec, jobs: list[Arrival]) -> None:
    coarse, fine = (lower_bound(spec, jobs, slot_s=slot_s) for slot_s in (200.0, 50.0))
    assume(fine.late_images < 1e-6)
    assert coarse.energy_j <= fine.energy_j * (1 + 1e-6) + 1e-3
    exact = lower_bound(spec, jobs, slot_s=200.0, exact=True)
    assert coarse.energy_j <= exact.energy_j * (1 + 1e-6) + 1e-3


@settings(max_examples=examples(40))
@given(
    st.lists(
        st.tuples(st.integers(1, 4), st.floats(1, 100), st.floats(10, 300)), min_size=1, max_size=4
    ),
    st.integers(1, 20_000),
)
def test_with_one_deadline_and_free_standby_it_is_greedy_by_joules_per_image(
    kinds: list[tuple[int, float, float]], images: int
) -> None:
    spec = fleet(
        *(
            hardware(f"k{i}", count, rate, points=[point(power_w)], **FREE)
            for i, (count, rate, power_w) in enumerate(kinds)
        )
    )
    deadline_s = 300.0
    left, greedy_j = float(images), 0.0
    for count, rate, power_w in sorted(kinds, key=lambda kind: kind[2] / kind[1]):
        made = min(left, count * rate * deadline_s)
        left -= made
        greedy_j += made * power_w / rate
    assume(left == 0)
    bound = lower_bound(spec, [job("a", 0.0, images, deadline_s)], slot_s=100.0)
    assert bound.energy_j == pytest.approx(greedy_j, rel=1e-6)
    assert bound.late_images == pytest.approx(0, abs=1e-3)


def test_whole_devices_are_woken_whole() -> None:
    # 100 images are a second of work: a hundredth of a load for the relaxation, a whole one here
    spec, jobs = fleet(hardware("one")), [job("a", 0.0, 100, 300.0)]
    exact = lower_bound(spec, jobs, slot_s=100.0, exact=True)
    assert (exact.overhead_j, exact.job_j) == (pytest.approx(500), pytest.approx(100))
    relaxed = lower_bound(spec, jobs, slot_s=100.0)
    assert relaxed.overhead_j < 50
    result = simulate(spec, jobs, baseline("pull-park", spec), horizon_s=300.0)
    idle_s = 60.0 + 1.0  # what the optimum saves: idling until it parks, and parking
    assert result.energy_j == pytest.approx(exact.energy_j + 20.0 * idle_s)


def test_waking_twice_or_idling_whichever_is_cheaper() -> None:
    jobs = [job("a", 0.0, 5000, 100.0), job("b", 1000.0, 5000, 100.0)]
    costly = fleet(hardware("one", idle_w=0.1))
    exact = lower_bound(costly, jobs, slot_s=100.0, exact=True)
    assert exact.overhead_j == pytest.approx(500)
    assert 0 < exact.idle_j < 100
    cheap = lower_bound(fleet(hardware("one")), jobs, slot_s=100.0, exact=True)
    assert (cheap.overhead_j, cheap.idle_j) == (pytest.approx(1000), pytest.approx(0, abs=1e-6))


def test_a_deadline_that_needs_dearer_hardware_costs_more() -> None:
    spec = fleet(hardware("slow", 1, 10.0, points=[point(10.0)], **FREE), hardware("fast", **FREE))
    loose = lower_bound(spec, [job("a", 0.0, 1000, 200.0)], slot_s=50.0)
    tight = lower_bound(spec, [job("a", 0.0, 1000, 50.0)], slot_s=50.0)
    assert loose.energy_j == pytest.approx(1000)
    # the slow one makes 500 in time, for nothing else to pay
    assert tight.energy_j == pytest.approx(1000)
    costly = fleet(
        hardware("slow", 1, 10.0, points=[point(10.0)], **FREE),
        hardware("fast", points=[point(500.0)], **FREE),
    )
    tight = lower_bound(costly, [job("a", 0.0, 1000, 50.0)], slot_s=50.0)
    assert tight.energy_j == pytest.approx(500 + 500 * 5)


def test_what_no_schedule_has_in_time_is_told() -> None:
    bound = lower_bound(fleet(hardware("one", **FREE)), [job("a", 0.0, 10_000, 50.0)], slot_s=50.0)
    assert bound.late_images == pytest.approx(5000)
    assert bound.energy_j == pytest.approx(10_000)


def test_jobs_without_a_deadline_go_where_they_are_cheapest() -> None:
    spec = fleet(hardware("slow", 1, 10.0, points=[point(1.0)], **FREE), hardware("fast"))
    bound = lower_bound(spec, [job("a", 0.0, 100_000, None)], slot_s=50.0)
    assert bound.energy_j == pytest.approx(10_000)


def test_the_gap_is_all_there_and_in_its_part() -> None:
    spec, jobs = fleet(hardware("one"), hardware("costly", points=[point(500.0)])), []
    jobs = [job(f"j{i}", 100.0 * i, 1000, 500.0) for i in range(8)]
    bound = lower_bound(spec, jobs)
    for name in BASELINES:
        result = simulate(spec, jobs, baseline(name, spec), horizon_s=2000.0)
        gap = gap_j(result, bound)
        assert sum(gap.values()) == pytest.approx(result.energy_j - bound.energy_j)
        assert gap["retry"] == gap["exploration"] == 0
