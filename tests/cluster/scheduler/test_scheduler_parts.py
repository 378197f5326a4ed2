"""Properties of the scheduler's parts: ranges, beliefs, the merit order, the cost of an event."""

from __future__ import annotations

import itertools
import math
import sys
from dataclasses import replace
from itertools import pairwise
from types import FrameType

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.scheduler.commands import RunAssignment, WakeReplica
from cluster.scheduler.events import (
    JobSubmitted,
    ReplicaAwake,
    ReplicaJoined,
    ShardsCommitted,
    Tick,
)
from cluster.scheduler.plan import make_plan
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import MIN_WINDOW_S, Profile, ProfileBook
from cluster.scheduler.ranges import Ranges
from cluster.scheduler.request import JobRequest, Objective, OperatingPoint, Performance, Usage
from cluster.scheduler.state import SchedulerState
from cluster.scheduler.supply import Demand, Offer, frontier
from tests.support.fleetworld import profile

# Ranges


@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["add", "remove", "take"]), st.integers(0, 40), st.integers(0, 12)
        ),
        max_size=40,
    )
)
def test_ranges_are_a_set(steps: list[tuple[str, int, int]]) -> None:
    ranges, model = Ranges(), set[int]()
    for kind, first, length in steps:
        numbers = set(range(first, first + length))
        if kind == "add":
            assert ranges.add(first, first + length) == len(numbers - model)
            model |= numbers
        elif kind == "remove":
            assert ranges.remove(first, first + length) == len(numbers & model)
            model -= numbers
        elif model and length:
            start, stop = ranges.take(length)
            assert start == min(model)
            assert 0 < stop - start <= length
            assert set(range(start, stop)) <= model
            model -= set(range(start, stop))
        listed = list(ranges)
        assert {n for run in listed for n in range(*run)} == model
        assert all(a[1] < b[0] for a, b in itertools.pairwise(listed))  # none touch
        assert ranges.size == len(model)
        assert bool(ranges) == bool(model)
        missing = {n for run in ranges.missing(first, first + length) for n in range(*run)}
        assert missing == numbers - model
        assert all((n in ranges) == (n in model) for n in range(-1, 54))


# Beliefs

POINT = OperatingPoint(64)
WINDOW_S = 2 * MIN_WINDOW_S


def seen(rate: float, power_w: float | None, duration_s: float = WINDOW_S) -> Usage:
    images = round(rate * duration_s)
    energy_mj = None if power_w is None else round(power_w * duration_s * 1000)
    quality = "missing" if power_w is None else "measured_counter"
    return Usage(images, duration_s, energy_mj, quality)


def believed(book: ProfileBook) -> Performance:
    found = book.profile("h", "m")
    assert found is not None
    return found.curve[0]


def guess(rate: float, power_w: float) -> Profile:
    joules = power_w / rate
    return profile("h", rate, power_w, samples=0, quality="estimated",
                   bounds_j=(joules / 2, joules * 2))  # fmt: skip


errors = st.floats(0.7, 1.3)


@given(
    rate_error=errors,
    power_error=errors,
    noise=st.lists(st.floats(0.97, 1.03), min_size=20, max_size=20),
)
def test_beliefs_converge_to_the_truth(
    rate_error: float, power_error: float, noise: list[float]
) -> None:
    book = ProfileBook([guess(1000 * rate_error, 300 * power_error)])
    for factor in noise * 2:
        book.observe("h", "m", POINT, seen(1000 * factor, 300 * factor))
    belief = believed(book)
    assert belief.images_per_s == pytest.approx(1000, rel=0.05)
    assert belief.energy_per_image_j == pytest.approx(0.3, rel=0.05)
    assert (belief.quality, belief.low_j, belief.high_j) == ("measured_counter", None, None)


@given(factor=st.one_of(st.floats(0.4, 0.8), st.floats(1.25, 2.5)))
def test_beliefs_follow_a_drift(factor: float) -> None:
    book = ProfileBook([profile("h", 1000, 300, samples=50)])
    for _ in range(12):
        book.observe("h", "m", POINT, seen(1000 * factor, 300))
    belief = believed(book)
    assert book.drifts == 1
    assert belief.images_per_s == pytest.approx(1000 * factor, rel=0.05)
    assert belief.power_w == pytest.approx(300, rel=0.01)


@given(factor=st.floats(0.1, 10))
def test_one_hiccup_is_no_drift(factor: float) -> None:
    book = ProfileBook([profile("h", 1000, 300, samples=50)])
    for rate in (1000, 1000 * factor, 1000, 1000):
        book.observe("h", "m", POINT, seen(rate, 300))
    assert book.drifts == 0
    assert believed(book).images_per_s == pytest.approx(1000, rel=0.06)


@given(rates=st.lists(st.floats(500, 2000), min_size=1, max_size=20))
def test_unknown_joules_stay_unknown(rates: list[float]) -> None:
    book = ProfileBook([guess(1000, 300)])
    for rate in rates:
        book.observe("h", "m", POINT, seen(rate, None))
    belief = believed(book)
    assert belief.quality == "estimated"
    assert belief.power_w == pytest.approx(300)
    assert belief.low_j is not None
    assert belief.high_j is not None
    assert belief.low_j < belief.energy_per_image_j < belief.high_j


def test_an_estimate_does_not_move_what_was_measured() -> None:
    book = ProfileBook([profile("h", 1000, 300, samples=5)])
    for _ in range(20):
        book.observe("h", "m", POINT, replace(seen(1000, 500), quality="estimated"))
    belief = believed(book)
    assert (belief.power_w, belief.quality) == (pytest.approx(300), "measured_counter")


def test_a_window_is_as_good_as_the_worst_of_it() -> None:
    book = ProfileBook([guess(1000, 300)])
    book.observe("h", "m", POINT, replace(seen(1000, 500, 1.0), quality="estimated"))
    book.observe("h", "m", POINT, seen(1000, 500, 1.5))
    assert believed(book).quality == "estimated"


@given(parts=st.lists(st.floats(0.05, 0.6), min_size=1, max_size=30))
def test_short_windows_are_pooled(parts: list[float]) -> None:
    book = ProfileBook([guess(1300, 300)])
    for duration_s in parts:
        book.observe("h", "m", POINT, seen(1000, 300, duration_s))
    samples = believed(book).samples
    assert samples <= sum(parts) / MIN_WINDOW_S
    assert samples >= int(sum(parts) / (MIN_WINDOW_S + 0.6))


# The merit order

EXACT = Policy(round_down=0.0)


@st.composite
def offers(draw: st.DrawFn, most_points: int = 3, *, free_start: bool = False) -> list[Offer]:
    found = []
    for number in range(draw(st.integers(1, 4))):
        rate, power_w = draw(st.floats(1, 2000)), draw(st.floats(5, 1000))
        faster = []
        for _ in range(draw(st.integers(0, most_points - 1))):
            rate, power_w = rate * draw(st.floats(1.05, 2)), power_w * draw(st.floats(1.05, 3))
            faster.append((rate, power_w))
        nodes = draw(st.integers(1, 20))
        load_j = 0.0 if free_start else draw(st.floats(0, 1e5))
        up = 0 if free_start else draw(st.integers(0, nodes))
        point = profile(f"h{number}", rate / 2, power_w / 2, load_j=load_j)
        if faster:
            point = profile(f"h{number}", faster[0][0] / 2, faster[0][1] / 2, load_j=load_j,
                            faster=tuple(faster))  # fmt: skip
        found.append(Offer(point, nodes, up))
    return found


def fastest(own: list[Offer]) -> float:
    return sum(o.nodes * frontier(o.profile, "energy")[-1].images_per_s for o in own)


@given(own=offers(), share=st.floats(0.01, 1), objective=st.sampled_from(["energy", "deadline"]))
def test_a_plan_meets_the_rate_when_there_is_capacity(
    own: list[Offer], share: float, objective: Objective
) -> None:
    rate = share * fastest(own) * (1 - 1e-9)
    demand = Demand("m", objective, rate, 10**7, patient=False)
    made = make_plan([demand], {demand.key: own}, EXACT)
    grants = made.grants[demand.key].values()
    assert sum(g.nodes * g.performance.images_per_s for g in grants) >= rate * (1 - 1e-9)
    assert not made.shortfall


@given(
    own=offers(),
    rates=st.lists(st.one_of(st.floats(0, 1e5), st.just(math.inf)), min_size=1, max_size=3),
    cap_w=st.floats(0, 20_000),
    shards=st.integers(1, 50),
)
def test_a_plan_keeps_to_the_cap_to_the_nodes_and_to_the_shards(
    own: list[Offer], rates: list[float], cap_w: float, shards: int
) -> None:
    objectives: list[Objective] = ["energy", "deadline", "throughput"]
    demands = [
        Demand("m", objective, rate, 10**7, patient=False, shards=shards)
        for objective, rate in zip(objectives, rates, strict=False)
    ]
    made = make_plan(demands, {d.key: own for d in demands}, EXACT, int(cap_w * 1000))
    grants = [g for by_hardware in made.grants.values() for g in by_hardware.values()]
    assert sum(g.nodes * g.performance.power_w for g in grants) <= cap_w + 1e-9
    for offer in own:
        assert made.nodes(offer.profile.hardware, "m") <= offer.nodes
    for by_hardware in made.grants.values():
        assert sum(g.nodes for g in by_hardware.values()) <= shards


@given(own=offers(), cap_w=st.floats(1, 20_000))
def test_a_cap_that_has_room_for_some_point_leaves_no_demand_without_a_replica(
    own: list[Offer], cap_w: float
) -> None:
    least_w = min(p.power_w for o in own for p in o.profile.curve)
    assume(cap_w > least_w + 0.01)
    for objective in ("energy", "throughput", "cost"):
        rate = math.inf if objective == "throughput" else 0.0
        demand = Demand("m", objective, rate, 10**7, patient=False)
        made = make_plan([demand], {demand.key: own}, EXACT, int(cap_w * 1000))
        assert made.grants[demand.key]


@given(own=offers(most_points=1, free_start=True), share=st.floats(0.01, 1))
def test_one_deadline_and_nothing_to_stand_by_is_greedy(own: list[Offer], share: float) -> None:
    """With I = L = 0 the optimum fills hardware in order of J/image."""
    costs = sorted(o.profile.curve[0].energy_per_image_j for o in own)
    assume(all(a * (1 + 1e-6) < b for a, b in pairwise(costs)))  # of equals any may be first
    rate = share * fastest(own)
    policy = Policy(round_down=0.0, start_share=0.0)
    startable = [replace(o, profile=_with_load(o.profile, 1e-6)) for o in own]  # none is widened
    demand = Demand("m", "energy", rate, 10**9, patient=False)
    made = make_plan([demand], {demand.key: startable}, policy).grants[demand.key]
    need = rate
    for offer in sorted(own, key=lambda o: o.profile.curve[0].energy_per_image_j):
        each = offer.profile.curve[0].images_per_s
        nodes = min(offer.nodes, max(0, math.ceil(need / each - 1e-9)))
        grant = made.get(offer.profile.hardware)
        assert abs((grant.nodes if grant else 0) - nodes) <= (1 if nodes else 0)
        need -= nodes * each


def _with_load(found: Profile, load_j: float) -> Profile:
    return replace(found, standby=replace(found.standby, load_j=load_j))


# What an event costs


def busy(nodes: int, shards: int) -> tuple[SchedulerState, list[RunAssignment]]:
    """A fleet at work, with two assignments each; and the assignments."""
    state = SchedulerState(ProfileBook([profile("gpu", 1000, 500)]))
    for number in range(nodes):
        state.handle(ReplicaJoined(0.0, f"r{number}", f"n{number}", "gpu"))
    commands = state.handle(JobSubmitted(1.0, JobRequest("j", "m", shards * 10, 10)))
    for wake in [c for c in commands if isinstance(c, WakeReplica)]:
        commands += state.handle(ReplicaAwake(1.0, wake.replica_id, "m"))
    commands += state.handle(Tick(2.0))
    return state, [c for c in commands if isinstance(c, RunAssignment)]


def calls_per_commit(nodes: int, shards: int) -> float:
    """How many functions, Python's and C's, handle an assignment's end, plans aside."""
    state, assignments = busy(nodes, shards)
    assert len(assignments) == 2 * nodes
    seen, calls = set(), 0

    def count(_: FrameType, kind: str, __: object) -> None:
        nonlocal calls
        calls += kind in ("call", "c_call")

    for assignment in assignments:
        if assignment.replica_id in seen or len(seen) == 20:
            continue
        seen.add(assignment.replica_id)
        event = ShardsCommitted(
            2.0, assignment.replica_id, assignment.assignment_id, "j",
            assignment.first, assignment.stop,
            Usage(10 * (assignment.stop - assignment.first), 10.0, 5_000_000, "measured_counter"),
        )  # fmt: skip
        sys.setprofile(count)
        try:
            state.handle(event)
        finally:
            sys.setprofile(None)
    state.validate()
    return calls / len(seen)


def test_work_per_event_does_not_grow_with_shards() -> None:
    few, many = calls_per_commit(4, 10**5), calls_per_commit(4, 10**8)
    assert many <= 1.2 * few


def test_work_per_event_does_not_grow_with_nodes() -> None:
    calls = {nodes: calls_per_commit(nodes, 10**8) for nodes in (100, 1000, 10_000)}
    assert calls[10_000] <= 1.2 * calls[100] + 20, calls
