"""Plans whose answers are worked out by hand, in each test's docstring."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cluster.optimise.capacity import Cap, Plan, Point, Problem, Weights, obstacles
from cluster.optimise.capacity_plan import alternatives, headroom, relaxations, solve
from tests.support.capacity import DAY_S, HOURS, KWH, burst, node, problem, steady

MONEY, CARBON = Weights(0.0, 1.0, 0.0), Weights(0.0, 0.0, 1.0)
A = node("a", 1.0, 100.0, keep_new_usd=24.0)
B = node("b", 2.0, 150.0, keep_new_usd=72.0)


def plan_of(problem: Problem, change: bool = True) -> Plan:
    plan = solve(problem, change)
    assert plan is not None
    assert plan.status == "optimal"
    return plan


def relaxed(problem: Problem) -> dict[str, float]:
    assert solve(problem) is None
    return {relaxation.limit: relaxation.amount for relaxation in relaxations(problem)}


def test_one_class() -> None:
    """2.5 images/s of nodes that make 1: three nodes; 2.5 nodes' work of 100 W, 21.6 MJ."""
    plan = plan_of(problem(node(), demand=steady(2.5)))
    assert plan.mix == {"a": 3}
    assert plan.total.energy_j == pytest.approx(2.5 * 100 * DAY_S)
    assert plan.peak_w <= 300 + 1e-6


def test_two_classes_whose_energy_and_price_cross() -> None:
    """2 images/s. a: 100 J/image, 24 USD a day for 1/s; b: 75 J/image, 72 USD for 2/s.
    By energy one b (12.96 MJ), by money two a (48 USD)."""
    asked = problem(A, B, demand=steady(2.0))
    assert plan_of(asked).mix == {"b": 1}
    assert plan_of(asked).total.energy_j == pytest.approx(75 * 2 * DAY_S)
    by_money = plan_of(replace(asked, weights=MONEY))
    assert by_money.mix == {"a": 2}
    assert by_money.total.usd == pytest.approx(48.0)


@pytest.mark.parametrize(("images_per_s", "mix"), [(0.01, {"b": 1}), (5.0, {"a": 1})])
def test_idle_dominates_a_small_demand(images_per_s: float, mix: dict[str, int]) -> None:
    """a: 50 J/image and 80 W parked; b: 100 J/image and nothing parked. At 0.01/s a takes 80 W all
    day and b 1 W; at 5/s a takes 80 + 5 * (50 - 8) = 290 W, b 500 W."""
    a = node("a", 10.0, 500.0, idle_w=100.0, parked_w=80.0)
    b = node("b", 1.0, 100.0)
    assert plan_of(problem(a, b, demand=steady(images_per_s))).mix == mix


@pytest.mark.parametrize(("images", "mix", "energy_j"), [(1e3, "b", 1e5), (2e4, "a", 1.36e6)])
def test_a_start_dominates_a_small_demand(images: float, mix: str, energy_j: float) -> None:
    """a: 50 J/image and 360 kJ to load (600 s at 600 W); b: 100 J/image. 1,000 images take a
    410 kJ, b 100 kJ. 20,000 take a 1.36 MJ with one start, b 2 MJ."""
    a = node("a", 1.0, 50.0, idle_w=50.0, load_s=600.0, load_w=600.0)
    plan = plan_of(problem(a, node("b"), demand=steady(images / DAY_S)))
    assert plan.mix == {mix: 1}
    assert plan.total.energy_j == pytest.approx(energy_j, rel=1e-6)


@pytest.mark.parametrize(("wait", "nodes"), [(0, 2), (1, 1)])
def test_a_deadline_decides_the_count(wait: int, nodes: int) -> None:
    """7,200 images in one hour at 1/s a node: two nodes within the hour, one in two hours."""
    assert plan_of(problem(node(), demand=burst(7200.0, wait))).mix == {"a": nodes}


def test_backlog_waits_around_midnight() -> None:
    """7,200 images at 23 h that may wait an hour: one node, which works at 23 h and 0 h."""
    plan = plan_of(problem(node(), demand=burst(7200.0, 1, hour=23)))
    assert plan.mix == {"a": 1}
    assert [s.slot for s in plan.slots if s.busy > 0.5] == [0, 23]


def test_a_cap_by_rack_spreads_nodes() -> None:
    """4 images/s; nodes of 100 W; 250 W a rack, so two at once in each of two racks."""
    racks = (node(rack="r1"), node(rack="r2"))
    caps = (Cap("r1", "power_w", 250.0, (0,)), Cap("r2", "power_w", 250.0, (1,)))
    plan = plan_of(problem(*racks, demand=steady(4.0), caps=caps))
    assert [nodes.end for nodes in plan.groups] == [2, 2]
    assert plan.peak_w == pytest.approx(400.0)


def test_whole_nodes_run_under_a_cap() -> None:
    """250 W and nodes of 100 W: two at once, never two and a half: 2.5 images/s cannot be."""
    cap = Cap("power_w", "power_w", 250.0, (0,))
    found = relaxed(problem(node(), demand=steady(2.5), caps=(cap,)))
    assert found["power_w"] == pytest.approx(50.0)
    assert found["demand"] == pytest.approx(0.8)


def test_a_cap_of_money_takes_the_thrifty_class_away() -> None:
    """By energy one b for 72 USD; with 60 USD to spend two a for 48."""
    cap = Cap("usd", "usd_per_day", 60.0, (0, 1))
    assert plan_of(problem(A, B, demand=steady(2.0), caps=(cap,))).mix == {"a": 2}


@pytest.mark.parametrize(("n_minus", "nodes"), [(0, 2), (1, 3)])
def test_the_loss_of_one_node(n_minus: int, nodes: int) -> None:
    """2 images/s of nodes that make 1: two; three if one may be lost."""
    assert plan_of(problem(node(), demand=steady(2.0), n_minus=n_minus)).mix == {"a": nodes}


def test_the_loss_of_the_largest_node_counts() -> None:
    """4 images/s; owned: one large node of 4/s (90 W parked, 100 busy) and two small ones of 1/s
    (1 W parked, 100 busy). Two more small ones do if it is lost: 90 + 4 + 10 = 104 W. A second
    large one in place of all small ones: 190 W; five small ones alone: 5 + 4 * 99 = 401 W."""
    large = node("large", 4.0, 100.0, owned=1, idle_w=90.0, parked_w=90.0)
    small = node("small", 1.0, 100.0, owned=2, idle_w=1.0, parked_w=1.0)
    plan = plan_of(problem(large, small, demand=steady(4.0), n_minus=1))
    assert plan.mix == {"large": 1, "small": 4}
    assert plan.total.energy_j == pytest.approx(104 * DAY_S)


def test_sunk_hardware_is_kept_and_new_is_not_bought() -> None:
    """Owned a: 2.4 kWh a day each at 0.1 USD; a new b would save half a cent of electricity and
    costs 72 USD. If nothing is owned, two a are rented for 48 USD."""
    price = (0.1 / KWH,) * HOURS
    owned = replace(A, owned=2, usd_per_j=price)
    asked = problem(owned, replace(B, usd_per_j=price), demand=steady(2.0), weights=MONEY)
    plan = plan_of(asked)
    assert [(n.start, n.retire, n.new, n.end) for n in plan.groups] == [(2, 0, 0, 2), (0, 0, 0, 0)]
    assert plan.total.usd == pytest.approx(2 * 2.4 * 0.1)
    bare = plan_of(replace(asked, groups=(replace(owned, owned=0), asked.groups[1])))
    assert bare.total.usd == pytest.approx(48.0 + 0.48)


def test_two_sites_with_opposite_prices() -> None:
    """1 image/s; each site is cheap (0.1) for half of the day and dear (0.3) for the other: work
    goes where it is cheap, 2.4 kWh for 0.24 USD."""
    cheap, dear = 0.1 / KWH, 0.3 / KWH
    north = node("a", site="north", owned=1, usd_per_j=(cheap,) * 12 + (dear,) * 12)
    south = node("a", site="south", owned=1, usd_per_j=(dear,) * 12 + (cheap,) * 12)
    plan = plan_of(problem(north, south, demand=steady(1.0, 0), weights=MONEY), change=False)
    assert plan.total.usd == pytest.approx(0.24)
    busy = {(s.group, s.slot) for s in plan.slots if s.busy > 0.5}
    assert busy == {(0, t) for t in range(12)} | {(1, t) for t in range(12, 24)}


def test_work_waits_for_green_hours() -> None:
    """1 image/s that may wait a day; two owned nodes; 12 green hours of 100 g/kWh: both work in
    them, 2.4 kWh for 240 g."""
    green = (100.0 / KWH,) * 12 + (500.0 / KWH,) * 12
    asked = problem(node(owned=2, g_per_j=green), demand=steady(1.0), weights=CARBON)
    assert plan_of(asked, change=False).total.g == pytest.approx(240.0)


def test_embodied_carbon_of_new_nodes_only() -> None:
    """Owned nodes' carbon is spent. 1 image/s: owned a at 100 W, 2.4 kWh of 100 g = 240 g; new b
    at 75 J/image, 180 g and 100 g embodied: a stays. With 50 g embodied b would win."""
    here = (100.0 / KWH,) * HOURS
    a, b = node("a", owned=1, g_per_j=here), replace(B, g_per_j=here, embodied_g=100.0)
    asked = problem(a, b, demand=steady(1.0), weights=CARBON)
    assert plan_of(asked).mix == {"a": 1}
    cheaper = plan_of(replace(asked, groups=(a, replace(b, embodied_g=50.0))))
    assert cheaper.mix.get("b") == 1
    assert cheaper.total.g == pytest.approx(230.0)


@pytest.mark.parametrize(("reserve", "nodes"), [(0.0, 2), (0.5, 3), (0.6, 4)])
def test_a_reserve(reserve: float, nodes: int) -> None:
    """2 images/s and half as much again: 3; six tenths: 3.2, four nodes."""
    assert plan_of(problem(node(), demand=steady(2.0), reserve=reserve)).mix == {"a": nodes}


def test_a_slower_point_is_taken_where_time_allows() -> None:
    """1 image/s at 100 W, or 0.5 at 40 W (80 J/image). One owned node, 0.5/s: always slow. 0.75/s:
    half of the time each, 0.5 * 100 + 0.5 * 40 = 70 W."""
    points = (Point("m", 1.0, 100.0), Point("m", 0.5, 40.0))
    slow = plan_of(problem(node(owned=1, points=points), demand=steady(0.5)), change=False)
    assert slow.total.energy_j == pytest.approx(40 * DAY_S)
    both = plan_of(problem(node(owned=1, points=points), demand=steady(0.75)), change=False)
    assert both.total.energy_j == pytest.approx(70 * DAY_S)


def test_unneeded_nodes_that_draw_parked_power_are_retired() -> None:
    """Four owned, 10 W parked, 1 image/s: three are given up."""
    plan = plan_of(problem(node(owned=4, idle_w=10.0, parked_w=10.0), demand=steady(1.0)))
    assert (plan.groups[0].retire, plan.groups[0].end) == (3, 1)


def test_nodes_that_cost_nothing_stay() -> None:
    """Four owned that draw nothing parked: giving them up would be change without gain."""
    assert plan_of(problem(node(owned=4), demand=steady(1.0))).groups[0].retire == 0


def test_equal_classes_are_taken_by_name() -> None:
    """Two classes alike: the first by name, in whatever order they are listed."""
    a, z = node("a"), node("z")
    assert plan_of(problem(a, z, demand=steady(2.5))).mix == {"a": 3}
    assert plan_of(problem(z, a, demand=steady(2.5))).mix == {"a": 3}


def test_availability_takes_more_nodes() -> None:
    """Nodes that are there four fifths of the time: 2 images/s take 2.5, so three."""
    assert plan_of(problem(node(availability=0.8), demand=steady(2.0))).mix == {"a": 3}


def test_infeasible_by_count() -> None:
    """2 images/s and one node: one more, or half of the demand."""
    cap = Cap("count", "count", 1.0, (0,))
    asked = problem(node(), demand=steady(2.0), caps=(cap,))
    assert relaxed(asked) == {"count": 1.0, "demand": 0.5}
    assert "need 2 images/s" in obstacles(asked)[0]


def test_infeasible_by_money() -> None:
    """Two nodes of 24 USD with 20 USD to spend: 28 more; no node can be paid for, so no demand."""
    cap = Cap("usd", "usd_per_day", 20.0, (0,))
    assert relaxed(problem(A, demand=steady(2.0), caps=(cap,))) == {"usd": 28.0, "demand": 0.0}


def test_infeasible_by_deadline() -> None:
    """7,200 images in an hour, one node: an hour later, one node more, or half of them."""
    cap = Cap("count", "count", 1.0, (0,))
    found = relaxed(problem(node(), demand=burst(7200.0, 0), caps=(cap,)))
    assert found == {"count": 1.0, "m.deadline": 1.0, "demand": 0.5}


def test_infeasible_by_margin() -> None:
    """Two nodes at most, 2 images/s, half in reserve: no reserve, or one node; and after the loss
    of a node: one node more, half of the demand, or no such margin."""
    cap = Cap("count", "count", 2.0, (0,))
    asked = problem(node(), demand=steady(2.0), caps=(cap,))
    assert relaxed(replace(asked, reserve=0.5))["reserve"] == pytest.approx(0.0, abs=1e-6)
    found = relaxed(replace(asked, n_minus=1))
    assert found == {"count": 1.0, "n_minus": 0.0, "demand": 0.5}


def test_no_smaller_relaxation_exists() -> None:
    """What is offered is the least: a thousandth less leaves it infeasible."""
    cap = Cap("usd", "usd_per_day", 20.0, (0,))
    asked = problem(A, demand=steady(2.0), caps=(cap,))
    amount = relaxed(asked)["usd"]
    assert solve(replace(asked, caps=(replace(cap, most=20.0 + amount * 0.999),))) is None
    assert solve(replace(asked, caps=(replace(cap, most=20.0 + amount),))) is not None


def test_headroom_of_a_fleet() -> None:
    """Four nodes of 1 image/s and 2.5 asked for: 1.6 times as much."""
    assert headroom(problem(node(owned=4), demand=steady(2.5))) == pytest.approx(1.6, rel=1e-4)


def test_steady_rate_of_bursts() -> None:
    """7,200 images in an hour that may wait two more: 7,200 in three hours; with 3,600 that come
    two hours later and may not wait: 10,800 in three hours."""
    first, second = burst(7200.0, 2), burst(3600.0, 0, hour=2)
    asked = problem(node(), demand=first)
    assert asked.steady_rate("m") == pytest.approx(7200 / (3 * 3600))
    both = replace(asked, demands=(first, second))
    assert both.steady_rate("m") == pytest.approx(10_800 / (3 * 3600))


def test_other_mixes_are_near() -> None:
    """a: 100 J/image, b: 98 J/image: two a, or one of each, are at most 2.05 % worse than two b."""
    asked = problem(node("a"), node("b", 1.0, 98.0), demand=steady(2.0))
    plan = plan_of(asked)
    assert plan.mix == {"b": 2}
    others = alternatives(asked, plan, 0.05)
    assert {"a": 2} in [other.mix for other in others]
    assert all(other.value <= plan.value * 1.05 * (1 + 1e-6) for other in others)
