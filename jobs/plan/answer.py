"""What a capacity plan answers: one JSON object, whose names scripts rely on.

Null is unknown, never 0. Money and carbon are null where a figure that they need is not given.
"""

from __future__ import annotations

from datetime import date as Date
from typing import Any, Literal

from pydantic import Field

from jobs.view import View

PLAN_SCHEMA_VERSION: Literal[1] = 1
Verb = Literal["size", "fit", "when", "what-if", "frontier"]


class GroupAnswer(View):
    """Nodes of a class at a place: there now, given up, added, and there in the end."""

    name: str
    site: str
    rack: str | None
    start: int
    retire: int
    new: int
    end: int
    hypothetical: bool


class PartAnswer(View):
    """A step of the waterfall, per day."""

    part: str
    energy_j: float
    usd: float | None
    carbon_g: float | None


class HourAnswer(View):
    """What a class does at a place in an hour: nodes on average, W on average and at most."""

    hour: int
    name: str
    site: str
    rack: str | None
    awake_nodes: float
    busy_nodes: float
    idle_nodes: float
    power_w: float
    peak_power_w: float
    images: dict[str, float]


class Simulated(View):
    """The plan replayed by the simulator over seeded days: means per day, and the share of jobs
    that missed their deadline. agrees: within ``margin`` of the plan's energy, which is a share."""

    energy_j_per_day: float
    miss_rate: float
    days: int
    energy_error: float
    margin: float
    agrees: bool


class RelaxationAnswer(View):
    """A single change that makes the demand feasible, and the plan's costs with it."""

    limit: str
    amount: float
    unit: str
    text: str
    mix: dict[str, int]
    energy_j_per_day: float
    cost_per_day: float | None
    carbon_g_per_day: float | None


class Provenance(View):
    """Where a figure of the file is from. source: null where the file does not say."""

    field: str
    value: float
    low: float | None
    high: float | None
    source: str | None
    date: Date | None
    quality: str | None


class Headroom(View):
    """How much more demand the fleet could bear: a factor; the months until growth reaches it, null
    without growth; what limits it."""

    factor: float
    months: float | None
    bottleneck: tuple[str, ...]


class NearOptimal(View):
    """Another mix, and how much worse its objective is, as a share."""

    mix: dict[str, int]
    worse_by: float


class Influence(View):
    """The plan's objective when one figure is at its low and at its high bound."""

    field: str
    at_low: float | None
    at_high: float | None


class Stability(View):
    """Of seeded resamples of all bounded figures: the share with the same mix."""

    samples: int
    seed: int
    same_mix: float
    mixes: tuple[tuple[dict[str, int], int], ...]
    tornado: tuple[Influence, ...]


class FrontierPoint(View):
    """The plan at one value of what is traded for the objective; infeasible ones have no costs."""

    against: str
    value: float
    feasible: bool
    mix: dict[str, int]
    energy_j_per_day: float | None
    cost_per_day: float | None
    carbon_g_per_day: float | None


class PlanAnswer(View):
    """An answer to one question. reasons: why it is infeasible, or what to know first."""

    schema_version: Literal[1] = PLAN_SCHEMA_VERSION
    verb: Verb
    scenario: str | None = None
    feasible: bool
    status: str
    objective: Any
    mix: dict[str, int]
    energy_j_per_day: float | None
    energy_low_j_per_day: float | None = None
    energy_high_j_per_day: float | None = None
    cost_per_day: float | None
    carbon_g_per_day: float | None
    peak_power_w: float | None
    value: float | None
    bound: float | None
    gap: float | None
    simulated: Simulated | None = None
    reasons: tuple[str, ...] = ()
    relaxations: tuple[RelaxationAnswer, ...] = ()
    nodes: tuple[GroupAnswer, ...] = ()
    waterfall: tuple[PartAnswer, ...] = ()
    hours: tuple[HourAnswer, ...] = ()
    hypothetical: tuple[str, ...] = ()
    headroom: Headroom | None = None
    near_optimal: tuple[NearOptimal, ...] = ()
    stability: Stability | None = None
    frontier: tuple[FrontierPoint, ...] = ()
    scenarios: tuple[PlanAnswer, ...] = ()
    provenance: tuple[Provenance, ...] = Field(default=())
