"""What holds for every plan: more is never cheaper, and names and units do not matter."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.optimise.capacity import Demand, Group, Plan, Point, Problem, Weights
from cluster.optimise.capacity_plan import solve
from tests.support.effort import examples

SLOTS = 4
CLOSE = 2e-5  # twice the solver's gap: either of two plans may be above its optimum by it


@st.composite
def groups(draw: st.DrawFn, name: str) -> Group:
    parked_w = draw(st.sampled_from([0.0, 5.0, 20.0]))
    idle_w = parked_w + draw(st.sampled_from([0.0, 10.0]))
    points = [
        Point("m", draw(st.integers(1, 8)) / 2, idle_w + draw(st.integers(10, 200)))
        for _ in range(draw(st.integers(1, 2)))
    ]
    return Group(
        name=name,
        site="s",
        rack=None,
        points=tuple(points),
        idle_w=idle_w,
        parked_w=parked_w,
        load_s=draw(st.sampled_from([0.0, 60.0])),
        load_w=idle_w,
        usd_per_j=tuple(draw(st.integers(1, 5)) * 1e-7 for _ in range(SLOTS)),
        g_per_j=(1e-4,) * SLOTS,
        owned=draw(st.integers(0, 2)),
        keep_new_usd=draw(st.integers(0, 40)) / 10,
    )


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    kinds = tuple(draw(groups(name)) for name in ("a", "b")[: draw(st.integers(1, 2))])
    images = tuple(draw(st.integers(0, 20)) * 1000.0 for _ in range(SLOTS))
    return Problem(
        groups=kinds,
        demands=(Demand("d", "m", images, draw(st.integers(0, 3))),),
        weights=draw(st.sampled_from([Weights(), Weights(0.0, 1.0, 0.0), Weights(1e-6, 1.0, 0.0)])),
        reserve=draw(st.sampled_from([0.0, 0.2])),
        n_minus=draw(st.integers(0, 1)),
        gap=CLOSE / 2,
    )


def plan_of(problem: Problem) -> Plan:
    plan = solve(problem)
    assert plan is not None  # nodes may come without limit
    return plan


def at_most(less: float, more: float) -> bool:
    return less <= more + CLOSE * abs(more) + 1e-6


def scaled(demand: Demand, factor: float) -> Demand:
    return replace(demand, images=tuple(images * factor for images in demand.images))


@settings(max_examples=examples(30, fast=2))
@given(problems(), st.sampled_from([1.1, 1.5, 3.0]))
def test_more_demand_never_costs_less(problem: Problem, factor: float) -> None:
    more = replace(problem, demands=(scaled(problem.demands[0], factor),))
    assert at_most(plan_of(problem).value, plan_of(more).value)


@settings(max_examples=examples(30, fast=2))
@given(problems(), st.integers(1, 3))
def test_looser_deadlines_never_cost_more(problem: Problem, hours: int) -> None:
    demand = problem.demands[0]
    later = replace(problem, demands=(replace(demand, slots=demand.slots + hours),))
    assert at_most(plan_of(later).value, plan_of(problem).value)


@settings(max_examples=examples(30, fast=2))
@given(problems(), groups("c"))
def test_another_class_never_costs_more(problem: Problem, group: Group) -> None:
    richer = replace(problem, groups=(*problem.groups, replace(group, owned=0)))
    assert at_most(plan_of(richer).value, plan_of(problem).value)


@settings(max_examples=examples(30, fast=2))
@given(problems(), st.sampled_from([0.01, 7.0, 1000.0]))
def test_currency_and_images_scale(problem: Problem, factor: float) -> None:
    """Another currency scales the money; images counted in dozens change nothing."""
    dearer = [
        replace(
            group,
            usd_per_j=tuple(usd * factor for usd in group.usd_per_j),
            keep_new_usd=group.keep_new_usd * factor,
        )
        for group in problem.groups
    ]
    by_money = replace(problem, weights=Weights(0.0, 1.0, 0.0))
    once, other = plan_of(by_money), plan_of(replace(by_money, groups=tuple(dearer)))
    assert at_most(once.value * factor, other.value)
    assert at_most(other.value, once.value * factor)
    dozens = [
        replace(
            group,
            points=tuple(replace(p, images_per_s=p.images_per_s / 12) for p in group.points),
        )
        for group in problem.groups
    ]
    counted = replace(problem, groups=tuple(dozens), demands=(scaled(problem.demands[0], 1 / 12),))
    assert at_most(plan_of(counted).value, plan_of(problem).value)
    assert at_most(plan_of(problem).value, plan_of(counted).value)


@settings(max_examples=examples(30, fast=2))
@given(problems())
def test_the_order_of_nodes_does_not_matter_and_plans_repeat(problem: Problem) -> None:
    plan, again = plan_of(problem), plan_of(problem)
    assert plan == again
    turned = plan_of(replace(problem, groups=problem.groups[::-1]))
    assert at_most(plan.value, turned.value)
    assert at_most(turned.value, plan.value)


@settings(max_examples=examples(30, fast=2))
@given(problems())
def test_a_plan_serves_its_demand_and_adds_up(problem: Problem) -> None:
    plan = plan_of(problem)
    made = sum(images for slot in plan.slots for images in slot.images.values())
    asked = sum(problem.demands[0].images)
    assert abs(made - asked) <= 1e-6 * max(asked, 1.0)
    weights, total = problem.weights, plan.total
    value = weights.energy * total.energy_j + weights.money * total.usd + weights.carbon * total.g
    assert abs(value - plan.value) <= 1e-6 * max(abs(value), 1.0)
    for slot in plan.slots:
        assert slot.busy + slot.idle + slot.loading <= plan.groups[slot.group].end + 1e-6
        assert slot.power_w <= slot.peak_w + 1e-6
