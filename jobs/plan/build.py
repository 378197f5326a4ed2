"""From a solved plan to the answer that is shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cluster.optimise.capacity import Costs, Plan, Problem
from cluster.optimise.capacity_plan import PARTS, Relaxation, solve
from jobs.plan.answer import (
    GroupAnswer,
    HourAnswer,
    PartAnswer,
    PlanAnswer,
    RelaxationAnswer,
    Verb,
)
from jobs.plan.request import Entry, PlanRequest
from jobs.plan.translate import provenance

G_PER_KG = 1e3
_UNITS = {
    "power_w": "W",
    "usd_per_day": "USD/day",
    "g_per_day": "kgCO2e/day",
    "count": "nodes",
    "deadline": "h",
    "reserve": "share",
    "n_minus": "nodes",
    "demand": "share",
}


def feasible_answer(
    request: PlanRequest, problem: Problem, plan: Plan, verb: Verb, change: bool
) -> PlanAnswer:
    """The answer for a plan; without simulation, uncertainty and what only one verb asks."""
    usd, g = costs_known(request, plan)
    return PlanAnswer(
        verb=verb,
        feasible=True,
        status=plan.status,
        objective=_objective(request),
        mix=plan.mix,
        energy_j_per_day=plan.total.energy_j,
        cost_per_day=plan.total.usd if usd else None,
        carbon_g_per_day=plan.total.g if g else None,
        peak_power_w=plan.peak_w,
        value=plan.value,
        bound=plan.bound,
        gap=plan.gap,
        reasons=_to_know_first(request, plan),
        nodes=_nodes(request, plan),
        waterfall=_waterfall(request, problem, plan, change),
        hours=_hours(plan),
        hypothetical=_hypothetical(request, plan),
        provenance=provenance(request),
    )


def infeasible_answer(
    request: PlanRequest, reasons: Sequence[str], found: Sequence[Relaxation], verb: Verb
) -> PlanAnswer:
    """The answer where there is no plan: why, and each single change that gives one."""
    return PlanAnswer(
        verb=verb,
        feasible=False,
        status="infeasible",
        objective=_objective(request),
        mix={},
        energy_j_per_day=None,
        cost_per_day=None,
        carbon_g_per_day=None,
        peak_power_w=None,
        value=None,
        bound=None,
        gap=None,
        reasons=tuple(reasons),
        relaxations=tuple(_relaxation(request, relaxation) for relaxation in found),
        provenance=provenance(request),
    )


def costs_known(request: PlanRequest, plan: Plan) -> tuple[bool, bool]:
    """Whether the plan's money and its carbon follow from the file."""
    entries = {entry.name: entry for entry in request.catalogue}
    rented = {owned.name for owned in request.fleet if owned.rented}
    paid = {n.group.name for n in plan.groups if n.new or (n.end and n.group.name in rented)}
    new = {nodes.group.name for nodes in plan.groups if nodes.new}
    usd = all(
        entries[name].price_usd_per_h is not None or entries[name].price_usd is not None
        for name in paid
    )
    g = request.signals.carbon_g_per_kwh is not None
    return usd, g and all(entries[name].embodied_kgco2e is not None for name in new)


def _objective(request: PlanRequest) -> object:
    objective = request.objective
    return objective if isinstance(objective, str) else objective.model_dump()


def _to_know_first(request: PlanRequest, plan: Plan) -> tuple[str, ...]:
    notes = []
    usd, g = costs_known(request, plan)
    entries = {entry.name: entry for entry in request.catalogue}
    if plan.status == "time_limit":
        notes.append(
            f"the solver stopped at its time limit: the optimum may be {plan.gap:.1%} better"
        )
    if not usd:
        notes.append("cost_per_day is unknown: a class of the mix has no price_usd_per_h")
    elif request.signals.price_usd_per_kwh is None:
        notes.append("cost_per_day is without electricity: signals.price_usd_per_kwh is not given")
    if request.signals.carbon_g_per_kwh is not None and not g:
        notes.append("carbon_g_per_day is unknown: a new class of the mix has no embodied_kgco2e")
    for demand in request.demand:
        hours = demand.deadline / 3600
        if hours % 1:
            notes.append(
                f"the deadline of {demand.model}, {hours:g} h, counts as {int(hours)} h: "
                "plans are made by the hour"
            )
    for name in _hypothetical(request, plan):
        notes.append(
            f"{name} is hypothetical: it cannot be had, and its figures are {_kind(entries[name])}"
        )
    return tuple(notes)


def _kind(entry: Entry) -> str:
    qualities = sorted({p.power_w.quality for p in entry.points if p.power_w.quality})
    return " and ".join(qualities) or "of no stated quality"


def _hypothetical(request: PlanRequest, plan: Plan) -> tuple[str, ...]:
    marked = {entry.name for entry in request.catalogue if entry.hypothetical}
    return tuple(name for name in plan.mix if name in marked)


def _nodes(request: PlanRequest, plan: Plan) -> tuple[GroupAnswer, ...]:
    marked = {entry.name for entry in request.catalogue if entry.hypothetical}
    return tuple(
        GroupAnswer(
            name=nodes.group.name,
            site=nodes.group.site,
            rack=nodes.group.rack,
            start=nodes.start,
            retire=nodes.retire,
            new=nodes.new,
            end=nodes.end,
            hypothetical=nodes.group.name in marked,
        )
        for nodes in plan.groups
        if nodes.start or nodes.end
    )


def _waterfall(
    request: PlanRequest, problem: Problem, plan: Plan, change: bool
) -> tuple[PartAnswer, ...]:
    """The parts of the plan without margins, and what the margins (reserve, n_minus) add to it."""
    usd, g = costs_known(request, plan)
    parts = dict(plan.parts)
    if problem.reserve or problem.n_minus:
        bare = solve(replace(problem, reserve=0.0, n_minus=0), change)
        if bare is not None:
            whole, least = plan.total, bare.total
            added = Costs(whole.energy_j - least.energy_j, whole.usd - least.usd, whole.g - least.g)
            parts = dict(bare.parts) | {"reserve": added}
    return tuple(
        PartAnswer(
            part=name,
            energy_j=parts[name].energy_j,
            usd=parts[name].usd if usd else None,
            carbon_g=parts[name].g if g else None,
        )
        for name in (*PARTS, "reserve")
        if name in parts
    )


def _hours(plan: Plan) -> tuple[HourAnswer, ...]:
    """Hours in which a group has nodes."""
    return tuple(
        HourAnswer(
            hour=slot.slot,
            name=nodes.group.name,
            site=nodes.group.site,
            rack=nodes.group.rack,
            awake_nodes=slot.awake,
            busy_nodes=slot.busy,
            idle_nodes=slot.idle,
            power_w=slot.power_w,
            peak_power_w=slot.peak_w,
            images=slot.images,
        )
        for slot in plan.slots
        if (nodes := plan.groups[slot.group]).end
    )


def _relaxation(request: PlanRequest, found: Relaxation) -> RelaxationAnswer:
    usd, g = costs_known(request, found.plan)
    total = found.plan.total
    amount = found.amount / G_PER_KG if found.kind == "g_per_day" else found.amount
    if found.kind == "n_minus":
        text = "n_minus: 0 in place of 1"
    elif found.kind == "reserve":
        text = f"reserve: {amount:.4g} in place of {request.reserve:g}"
    elif found.kind == "demand":
        text = f"demand: {amount:.4%} of it"
    else:
        text = f"{found.limit}: +{amount:.6g} {_UNITS[found.kind]}"
    return RelaxationAnswer(
        limit=found.limit,
        amount=amount,
        unit=_UNITS[found.kind],
        text=text,
        mix=found.plan.mix,
        energy_j_per_day=total.energy_j,
        cost_per_day=total.usd if usd else None,
        carbon_g_per_day=total.g if g else None,
    )
