"""The questions of ``un0 plan``: each takes a request and gives one answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cluster.documents import parse
from cluster.errors import UserError
from cluster.optimise.capacity import Plan, Problem, obstacles
from cluster.optimise.capacity_plan import Relaxation, headroom, relaxations, solve
from jobs.plan.answer import FrontierPoint, Headroom, PlanAnswer, Verb
from jobs.plan.build import costs_known, feasible_answer, infeasible_answer
from jobs.plan.request import PlanRequest
from jobs.plan.translate import best, figures, problem_of, worst
from un0.suggest import choose

DAY_SLOTS = 24
RAISED = 1.001  # times the headroom: a limit that gives so much more is a bottleneck
AGAINST = ("deadline", "money", "carbon")
DEADLINE_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
#: Completes the answer for a plan: the simulation, say.
Check = Callable[[PlanRequest, Plan, PlanAnswer], PlanAnswer]


def size(request: PlanRequest, check: Check | None = None, verb: Verb = "size") -> PlanAnswer:
    """Which nodes to keep, add and give up."""
    return _answer(request, verb, True, check)


def when(request: PlanRequest, check: Check | None = None) -> PlanAnswer:
    """Which hours to run, and where, on the fleet that is there. Raises UserError."""
    _needs_fleet(request, "when")
    return _answer(request, "when", False, check)


def fit(request: PlanRequest, check: Check | None = None) -> PlanAnswer:
    """Whether the fleet that is there can meet the demand, and how much more. Raises UserError."""
    _needs_fleet(request, "fit")
    answer = _answer(request, "fit", False, check)
    problem = problem_of(request)
    factor = headroom(problem)
    growth = max(demand.growth_per_month for demand in request.demand)
    months = math.log(factor) / math.log1p(growth) if growth > 0 and factor >= 1.0 else None
    found = Headroom(factor=factor, months=months, bottleneck=_bottleneck(problem, factor))
    return answer.model_copy(update={"headroom": found})


def what_if(request: PlanRequest, check: Check | None = None) -> PlanAnswer:
    """The plan, and that of every scenario of the file. Raises UserError."""
    if not request.scenarios:
        raise UserError(
            "scenarios is missing; write for example scenarios: {capped: {limits: {power_w: 1000}}}"
        )
    answers = []
    for name, changes in request.scenarios.items():
        changed = _changed(request, name, changes)
        answer = size(changed, check, "what-if")
        answers.append(answer.model_copy(update={"scenario": name}))
    base = size(request, check, "what-if")
    return base.model_copy(update={"scenarios": tuple(answers)})


def frontier(
    request: PlanRequest, against: str, points: int, check: Check | None = None
) -> PlanAnswer:
    """The plan, and how its objective trades against deadlines, money or carbon. Raises
    UserError."""
    if against not in AGAINST:
        raise UserError(f"--against {against!r} is not known; {choose(against, AGAINST)}")
    base = size(request, check, "frontier")
    found = _by_deadline(request) if against == "deadline" else _by_cap(request, against, points)
    return base.model_copy(update={"frontier": tuple(found)})


def _answer(request: PlanRequest, verb: Verb, change: bool, check: Check | None) -> PlanAnswer:
    problem = problem_of(request)
    reasons = obstacles(problem)
    plan = None if reasons and change else solve(problem, change)
    if plan is None:
        found = relaxations(problem, change)
        return infeasible_answer(request, reasons or _conflict(found, change), found, verb)
    answer = feasible_answer(request, problem, plan, verb, change)
    answer = answer.model_copy(update=_bounds(request, plan, answer))
    return answer if check is None else check(request, plan, answer)


def _conflict(found: Sequence[Relaxation], change: bool) -> list[str]:
    """Which limits are in each other's way, where arithmetic alone does not say."""
    limits = [relaxation.limit for relaxation in found if relaxation.kind != "demand"]
    met = [relaxation.amount for relaxation in found if relaxation.kind == "demand"]
    reasons = []
    if met and not change:
        reasons.append(f"the fleet that is there can meet {met[0]:.4%} of the demand")
    if limits:
        reasons.append(f"together these cannot be met: demand, {', '.join(limits)}")
    elif change:
        reasons.append(
            "no single limit is the reason: more than one has to give way, or the demand"
        )
    return reasons


def _bounds(request: PlanRequest, plan: Plan, answer: PlanAnswer) -> dict[str, Any]:
    """Energy of these nodes with every figure at its better and at its worse bound."""
    energy_j = plan.total.energy_j
    known: dict[str, Any] = {"energy_low_j_per_day": energy_j, "energy_high_j_per_day": energy_j}
    if all(figure.bounds == (figure.value, figure.value) for _, figure in figures(request)):
        return known
    ends: list[float | None] = []
    for pick in (best, worst):
        problem = replace(problem_of(request, pick), reserve=0.0, n_minus=0)
        found = solve(problem, fixed=plan.groups)
        ends.append(None if found is None else found.total.energy_j)
    low_j, high_j = ends
    known = {
        "energy_low_j_per_day": None if low_j is None else min(low_j, energy_j),
        "energy_high_j_per_day": None if high_j is None else max(high_j, energy_j),
    }
    if high_j is None:
        reason = "with every figure at its worse bound this mix cannot meet the demand"
        return known | {"reasons": (reason, *answer.reasons)}
    return known


def _needs_fleet(request: PlanRequest, verb: str) -> None:
    if not request.fleet:
        raise UserError(
            f"fleet is missing, which `un0 plan {verb}` is about; "
            "write for example fleet: [{name: L4, count: 6}]"
        )


def _bottleneck(problem: Problem, factor: float) -> tuple[str, ...]:
    """Each limit without which the fleet could do more; else its nodes."""
    without = [
        (cap.name, replace(problem, caps=tuple(c for c in problem.caps if c is not cap)))
        for cap in problem.caps
        if cap.kind != "count"
    ]
    if problem.n_minus:
        without.append(("n_minus", replace(problem, n_minus=0)))
    if problem.reserve:
        without.append(("reserve", replace(problem, reserve=0.0)))
    for i, demand in enumerate(problem.demands):
        if demand.slots < DAY_SLOTS:
            demands = list(problem.demands)
            demands[i] = replace(demand, slots=DAY_SLOTS)
            without.append((demand.name, replace(problem, demands=tuple(demands))))
    found = [name for name, other in without if headroom(other) > factor * RAISED]
    return tuple(found) or ("nodes",)


def _changed(request: PlanRequest, name: str, changes: Mapping[str, Any]) -> PlanRequest:
    """The request with a scenario's changes: mappings are merged, and lists by name."""
    before = request.model_dump(mode="json", exclude_unset=True, exclude={"scenarios"})
    return parse(PlanRequest, _merged(before, changes), f"scenario {name}")


def _merged(before: Any, change: Any) -> Any:
    if isinstance(before, dict) and isinstance(change, Mapping):
        merged = dict(before)
        for key, value in change.items():
            merged[key] = _merged(before.get(key), value)
        return merged
    if isinstance(before, list) and isinstance(change, list):
        key = next((k for k in ("name", "model") if _all_have(before + change, k)), None)
        if key is not None:
            return _merged_lists(before, change, key)
    return change


def _all_have(items: list[Any], key: str) -> bool:
    return all(isinstance(item, dict) and key in item for item in items)


def _merged_lists(
    before: list[dict[str, Any]], change: list[dict[str, Any]], key: str
) -> list[dict[str, Any]]:
    """Items of the same name are merged, others added; ``remove: true`` takes one out."""
    changes = {item[key]: item for item in change}
    merged = [_merged(item, changes.pop(item[key], {})) for item in before]
    merged += changes.values()
    return [
        {k: v for k, v in item.items() if k != "remove"}
        for item in merged
        if not item.get("remove")
    ]


def _by_deadline(request: PlanRequest) -> list[FrontierPoint]:
    found = []
    for factor in DEADLINE_FACTORS:
        demands = tuple(
            demand.model_copy(update={"deadline": demand.deadline * factor})
            for demand in request.demand
        )
        changed = request.model_copy(update={"demand": demands})
        found.append(_point(changed, "deadline", factor, solve(problem_of(changed))))
    return found


def _by_cap(request: PlanRequest, against: str, points: int) -> list[FrontierPoint]:
    """Between the plan that is best for the objective and the one that is best for the other."""
    own = _needed(request, against, {})
    other = solve(problem_of(_needed(request, against, {"objective": against})))
    mine = solve(problem_of(own))
    if other is None or mine is None:
        return []
    least, most = (_cost(plan, against) for plan in (other, mine))
    field = "usd_per_day" if against == "money" else "kgco2e_per_day"
    found = []
    for step in range(points):
        value = least + (most - least) * step / max(points - 1, 1)
        limits = own.limits.model_copy(update={field: value * (1 + 1e-6)})
        changed = own.model_copy(update={"limits": limits})
        found.append(_point(changed, against, value, solve(problem_of(changed))))
    return found


def _needed(request: PlanRequest, against: str, update: dict[str, Any]) -> PlanRequest:
    """The request, checked again: the other cost must be known. Raises UserError."""
    data = request.model_dump(mode="json", exclude_unset=True)
    checked = parse(PlanRequest, data | {"objective": against}, f"--against {against}")
    return checked if update else request


def _cost(plan: Plan, against: str) -> float:
    return plan.total.usd if against == "money" else plan.total.g / 1e3


def _point(request: PlanRequest, against: str, value: float, plan: Plan | None) -> FrontierPoint:
    usd, g = (False, False) if plan is None else costs_known(request, plan)
    return FrontierPoint(
        against=against,
        value=value,
        feasible=plan is not None,
        mix={} if plan is None else plan.mix,
        energy_j_per_day=None if plan is None else plan.total.energy_j,
        cost_per_day=plan.total.usd if plan is not None and usd else None,
        carbon_g_per_day=plan.total.g if plan is not None and g else None,
    )
