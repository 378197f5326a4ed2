"""How much of a plan depends on figures that are not exact: resamples, influence, other mixes."""

from __future__ import annotations

import random
from collections import Counter

from cluster.optimise.capacity import Plan
from cluster.optimise.capacity_plan import alternatives, solve
from jobs.plan.answer import Influence, NearOptimal, Stability
from jobs.plan.request import Figure, PlanRequest
from jobs.plan.translate import figures, problem_of, stated

NEAR = 0.05  # share by which a near-optimal mix may be worse


def stability(request: PlanRequest, plan: Plan, samples: int, seed: int = 0) -> Stability:
    """The mixes of plans whose bounded figures are drawn anew, from triangles between their bounds
    with the stated value on top; and the objective with each figure alone at either bound."""
    mixes: Counter[tuple[tuple[str, int], ...]] = Counter()
    for number in range(samples):

        def drawn(field: str, figure: Figure, _worse: bool, number: int = number) -> float:
            low, high = figure.bounds
            rng = random.Random(f"{seed} {number} {field}")  # not by order: fields may be added
            return rng.triangular(low, high, figure.value) if low < high else low

        found = solve(problem_of(request, drawn))
        mixes[() if found is None else tuple(found.mix.items())] += 1
    ordered = sorted(mixes.items(), key=lambda item: (-item[1], item[0]))
    return Stability(
        samples=samples,
        seed=seed,
        same_mix=mixes[tuple(plan.mix.items())] / samples,
        mixes=tuple((dict(mix), count) for mix, count in ordered),
        tornado=tornado(request),
    )


def tornado(request: PlanRequest) -> tuple[Influence, ...]:
    """The objective with one figure at either bound, the most influential figure first."""
    found = []
    for field, figure in figures(request):
        low, high = figure.bounds
        if low < high:
            ends = [_value_with(request, field, bound) for bound in (low, high)]
            found.append(Influence(field=field, at_low=ends[0], at_high=ends[1]))
    return tuple(sorted(found, key=lambda influence: (-_swing(influence), influence.field)))


def near_optimal(request: PlanRequest, plan: Plan) -> tuple[NearOptimal, ...]:
    """Mixes that are at most 5 % worse: those with the fewest and the most nodes of each class."""
    return tuple(
        NearOptimal(mix=other.mix, worse_by=(other.value - plan.value) / abs(plan.value))
        for other in alternatives(problem_of(request), plan, NEAR)
        if plan.value
    )


def _value_with(request: PlanRequest, field: str, value: float) -> float | None:
    def pick(of: str, figure: Figure, more_is_worse: bool) -> float:
        return value if of == field else stated(of, figure, more_is_worse)

    plan = solve(problem_of(request, pick))
    return None if plan is None else plan.value


def _swing(influence: Influence) -> float:
    if influence.at_low is None or influence.at_high is None:
        return float("inf")
    return abs(influence.at_high - influence.at_low)
