"""Solves the capacity program: a plan, how much demand it could bear, what would make it feasible.

The objective comes first. Among its optima the one with the fewest changes is taken, and among
those the one whose new nodes come first by the name of their class: the same problem gives the
same plan, in whatever order its groups are listed. Where that choice takes too long it is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from cluster.errors import Fatal
from cluster.optimise.capacity import (
    Cap,
    Costs,
    GroupPlan,
    Plan,
    Problem,
    SlotPlan,
)
from cluster.optimise.capacity_program import Capacity
from cluster.optimise.program import Floats, Solved

SAME = 1e-7  # share of the objective within which two plans are equally good
TIE_SHARE = 0.2  # of the time limit, for the choice among equally good plans
MOST_WAIT = 48  # slots by which a relaxed deadline is at most later
MOST_SCALE = 1e6
PARTS = ("dispatch", "idle", "load", "parked", "rent", "embodied")
Free = Mapping[int, tuple[float, float]]
RelaxKind = Literal[
    "power_w", "usd_per_day", "g_per_day", "count", "deadline", "reserve", "n_minus", "demand"
]


@dataclass(frozen=True)
class Relaxation:
    """One change that alone makes the problem feasible. amount: in the limit's own unit, slots for
    a deadline, the new value for the reserve, the share that can be met for demand. plan: with it.
    """

    limit: str
    kind: RelaxKind
    amount: float
    plan: Plan


def solve(problem: Problem, change: bool = True, fixed: Sequence[GroupPlan] = ()) -> Plan | None:
    """The best plan; None if there is none.

    change: whether nodes may be bought and retired. fixed: another plan's nodes, group by group,
    which are kept as they are. Raises Fatal if no plan is found within the time limit.
    """
    capacity = Capacity(problem, change)
    counts = {capacity.new[i]: (float(nodes.new),) * 2 for i, nodes in enumerate(fixed)}
    counts |= {capacity.retired[i]: (float(nodes.retire),) * 2 for i, nodes in enumerate(fixed)}
    return _plan(capacity, counts)


def alternatives(problem: Problem, plan: Plan, within: float) -> list[Plan]:
    """Other mixes whose objective is at most that share worse: for each class that with the fewest
    nodes of it, and that with the fewest of all others, each then run at its best. The best of
    them first."""
    capacity = Capacity(problem)
    most = plan.value + within * abs(plan.value)
    near = capacity.program.with_row(capacity.objective(), most)
    found = {tuple(plan.mix.items()): plan}
    for name in sorted({group.name for group in problem.groups}):
        for its_own in (True, False):
            costs = np.zeros(capacity.program.columns)
            for number, group in enumerate(problem.groups):
                counts_most = (group.name == name) == its_own
                costs[capacity.kept[number]] = 1.0 if counts_most else 1e-3
            solved = near.minimise(costs, time_limit_s=problem.time_limit_s, gap=problem.gap)
            if solved.x is None:
                continue
            counts = [
                GroupPlan(
                    group,
                    group.owned,
                    round(float(solved.x[capacity.new[i]])),
                    round(float(solved.x[capacity.retired[i]])),
                )
                for i, group in enumerate(problem.groups)
            ]
            other = solve(problem, fixed=counts)
            if other is not None and other.value <= most * (1 + SAME):
                found.setdefault(tuple(other.mix.items()), other)
    del found[tuple(plan.mix.items())]
    return sorted(found.values(), key=lambda other: (other.value, sorted(other.mix.items())))


def headroom(problem: Problem, change: bool = False) -> float:
    """The largest factor of the demand that can be met; 0 if not even none."""
    capacity = Capacity(problem, change)
    costs = np.zeros(capacity.program.columns)
    costs[capacity.scale] = -1.0
    solved = _minimise(capacity, costs, {capacity.scale: (0.0, MOST_SCALE)})
    return 0.0 if solved.x is None else float(solved.x[capacity.scale])


def relaxations(problem: Problem, change: bool = True) -> list[Relaxation]:
    """Of an infeasible problem: each single limit that makes it feasible when it gives way, by the
    least amount (rounded up to four digits), solved with that amount."""
    capacity = Capacity(problem, change)
    found = [_of_cap(capacity, cap) for cap in problem.caps]
    if problem.reserve:
        found.append(_of_reserve(capacity))
    if problem.n_minus:
        plan = solve(replace(problem, n_minus=0), change)
        found.append(None if plan is None else Relaxation("n_minus", "n_minus", 0.0, plan))
    found += [_of_deadline(problem, i, change) for i in range(len(problem.demands))]
    found.append(_of_demand(capacity))
    return [relaxation for relaxation in found if relaxation is not None]


def _of_cap(capacity: Capacity, cap: Cap) -> Relaxation | None:
    slack = capacity.slack[cap.name]
    least = _least(capacity, slack, math.inf)
    if least is None:
        return None
    whole = cap.kind == "count"
    amounts = [float(math.ceil(least - 1e-6))] if whole else _rounded(least, math.ceil)
    for amount in amounts:
        plan = _plan(capacity, {slack: (0.0, amount)})
        if plan is not None:
            return Relaxation(cap.name, cap.kind, amount, plan)
    return None


def _of_reserve(capacity: Capacity) -> Relaxation | None:
    return _lowered(capacity, "reserve", capacity.reserve, capacity.problem.reserve)


def _of_demand(capacity: Capacity) -> Relaxation | None:
    return _lowered(capacity, "demand", capacity.scale, 1.0)


def _lowered(
    capacity: Capacity, kind: Literal["reserve", "demand"], column: int, most: float
) -> Relaxation | None:
    share = _least(capacity, column, most, sign=-1.0)
    for tried in [] if share is None else _rounded(share, math.floor):
        plan = _plan(capacity, {column: (tried, tried)})
        if plan is not None:
            return Relaxation(kind, kind, tried, plan)
    return None


def _of_deadline(problem: Problem, number: int, change: bool) -> Relaxation | None:
    """Later by the fewest slots: more of them never make it infeasible, so halving finds it."""

    def later(slots: int) -> Problem:
        demands = list(problem.demands)
        demands[number] = replace(demands[number], slots=demands[number].slots + slots)
        return replace(problem, demands=tuple(demands))

    low, high = 0, MOST_WAIT  # infeasible, perhaps feasible
    plan = solve(later(high), change)
    if plan is None:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        tried = solve(later(middle), change)
        low, high, plan = (middle, high, plan) if tried is None else (low, middle, tried)
    return Relaxation(problem.demands[number].name, "deadline", float(high), plan)


def _least(capacity: Capacity, column: int, most: float, sign: float = 1.0) -> float | None:
    """The least (with sign -1 the most) of one column with which all the rest holds."""
    costs = np.zeros(capacity.program.columns)
    costs[column] = sign
    solved = _minimise(capacity, costs, {column: (0.0, most)})
    return None if solved.x is None else float(solved.x[column])


def _rounded(value: float, to: Callable[[float], int]) -> list[float]:
    """Four significant digits of it: the nearest if that is all but the value, then in one
    direction."""
    if value <= 1e-9:
        return [0.0]
    step = 10.0 ** (math.floor(math.log10(value)) - 3)
    near, beyond = round(value / step), to(value / step)
    digits = [near, to(near + (0.5 if to is math.ceil else -0.5))]
    if abs(near * step - value) > 1e-6 * value:
        digits = [beyond]
    return [float(f"{digit * step:.6g}") for digit in digits]


def _minimise(capacity: Capacity, costs: Floats, free: Free) -> Solved:
    problem = capacity.problem
    return capacity.program.minimise(
        costs, time_limit_s=problem.time_limit_s, gap=problem.gap, free=free
    )


def _plan(capacity: Capacity, free: Free) -> Plan | None:
    costs = capacity.objective()
    best = _minimise(capacity, costs, free)
    if best.x is None:
        return None
    x = _fewest_changes(capacity, costs, best, free)
    return _read(capacity, x, best, float(costs @ x))


def _fewest_changes(capacity: Capacity, costs: Floats, best: Solved, free: Free) -> Floats:
    """Values as good as the best, with the fewest new and retired nodes."""
    assert best.x is not None  # the caller has looked
    program = capacity.program
    changes = np.zeros(program.columns)
    groups = capacity.problem.groups
    ranks = {key: i for i, key in enumerate(sorted(group.key for group in groups))}
    for number, group in enumerate(groups):
        rank = 1.0 + 1e-3 * ranks[group.key] / len(groups)
        changes[capacity.new[number]] = changes[capacity.retired[number]] = rank
    tied = program.with_row(costs, best.value + SAME * abs(best.value))
    problem = capacity.problem
    limit_s = problem.time_limit_s * TIE_SHARE
    try:
        fewest = tied.minimise(changes, time_limit_s=limit_s, gap=problem.gap, free=free)
    except Fatal:  # it takes too long: the first optimum stands
        return _whole(capacity, costs, best.x, free)
    x = best.x if fewest.x is None else fewest.x
    return _whole(capacity, costs, x, free)


def _whole(capacity: Capacity, costs: Floats, x: Floats, free: Free) -> Floats:
    """The best values for exactly whole numbers; the ones given if there are none."""
    fixed = dict(free) | {
        column: (round(float(x[column])),) * 2 for column in capacity.program.whole
    }
    problem = capacity.problem
    try:
        solved = capacity.program.minimise(
            costs, time_limit_s=problem.time_limit_s, gap=0.0, free=fixed, whole=False
        )
    except Fatal:
        return x
    return x if solved.x is None else solved.x


def _read(capacity: Capacity, x: Floats, best: Solved, value: float) -> Plan:
    problem = capacity.problem
    parts = {name: [0.0, 0.0, 0.0] for name in PARTS}
    slots = []
    groups = []
    for number, group in enumerate(problem.groups):
        new, retired = (round(float(x[c[number]])) for c in (capacity.new, capacity.retired))
        plan = GroupPlan(group, group.owned, new, retired)
        groups.append(plan)
        parts["rent"][1] += (plan.end - new) * group.keep_owned_usd + new * group.keep_new_usd
        parts["embodied"][2] += new * group.embodied_g
        for t in range(problem.slots):
            slots.append(_slot(capacity, x, plan, number, t, parts))
    bound = min(best.bound, value)
    return Plan(
        status=best.status,
        groups=tuple(groups),
        slots=tuple(slots),
        parts={name: Costs(*values) for name, values in parts.items()},
        value=value,
        bound=bound,
        gap=max(0.0, value - bound) / max(abs(value), 1e-12),
        demand_share=float(x[capacity.scale]),
    )


def _slot(
    capacity: Capacity,
    x: Floats,
    plan: GroupPlan,
    number: int,
    t: int,
    parts: dict[str, list[float]],
) -> SlotPlan:
    """What a group does in a slot; its costs are added to the parts."""
    problem, group = capacity.problem, plan.group
    load = group.load_s / problem.slot_s
    awake = busy = idle = loading = 0.0
    peak_w = group.parked_w * plan.end
    images: dict[str, float] = {}
    watts = dict.fromkeys(("dispatch", "idle", "load"), 0.0) | {"parked": peak_w}
    for model in problem.models:
        commit = capacity.at.get((number, model, t))
        if commit is None:
            continue
        awake += float(x[commit.awake])
        idle += float(x[commit.idle])
        watts["idle"] += float(x[commit.idle]) * (group.idle_w - group.parked_w)
        if commit.woken is not None:
            loading += load * float(x[commit.woken])
            watts["load"] += load * float(x[commit.woken]) * (group.load_w - group.parked_w)
        at_once = 0
        for point, column in commit.points:
            share = float(x[column])
            if share < 1e-9:
                continue
            busy += share
            watts["dispatch"] += share * (point.power_w - group.parked_w)
            at_once += math.ceil(share - 1e-6)
            peak_w += math.ceil(share - 1e-6) * (point.power_w - group.parked_w)
            images[model] = images.get(model, 0.0) + share * point.images_per_s * problem.slot_s
        waiting = math.ceil(float(x[commit.awake]) - 1e-6) - at_once
        peak_w += max(waiting, 0) * (
            max(group.idle_w, group.load_w if load else 0.0) - group.parked_w
        )
    for name, power_w in watts.items():
        energy_j = power_w * problem.slot_s
        parts[name][0] += energy_j
        parts[name][1] += energy_j * group.usd_per_j[t]
        parts[name][2] += energy_j * group.g_per_j[t]
    return SlotPlan(number, t, awake, busy, idle, loading, sum(watts.values()), peak_w, images)
