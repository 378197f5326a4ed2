"""What a capacity plan is asked for and what it answers: plain values, no I/O.

Time is a cycle of equal slots, usually the 24 hours of a day: what waits at the end of the last
slot waits at the start of the first. The program itself is in ``capacity_program``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import numpy as np

from cluster.optimise.program import Floats, Status

CapKind = Literal["power_w", "usd_per_day", "g_per_day", "count"]


@dataclass(frozen=True)
class Point:
    """A way to run a model on a node: images/s, and the node's W while it works."""

    model: str
    images_per_s: float
    power_w: float


@dataclass(frozen=True)
class Group:
    """Alike nodes at one place: a class, a site and perhaps a rack.

    owned: nodes that are there. availability: share of the time that a node is there.
    keep_owned_usd, keep_new_usd: per node and day. embodied_g: gCO2e per new node and day.
    usd_per_j, g_per_j: of electricity, by slot.
    """

    name: str
    site: str
    rack: str | None
    points: tuple[Point, ...]
    idle_w: float
    parked_w: float
    load_s: float
    load_w: float
    usd_per_j: tuple[float, ...]
    g_per_j: tuple[float, ...]
    owned: int = 0
    may_retire: bool = True
    may_grow: bool = True
    availability: float = 1.0
    keep_owned_usd: float = 0.0
    keep_new_usd: float = 0.0
    embodied_g: float = 0.0

    @property
    def key(self) -> tuple[str, str, str]:
        return self.name, self.site, self.rack or ""

    def fastest(self, model: str) -> float:
        """Images/s; 0 if it cannot run the model."""
        return max((p.images_per_s for p in self.points if p.model == model), default=0.0)


@dataclass(frozen=True)
class Demand:
    """images: that come in each slot, evenly. slots: whole slots that they may wait; 0: none."""

    name: str
    model: str
    images: tuple[float, ...]
    slots: int


@dataclass(frozen=True)
class Cap:
    """An upper limit on the groups whose numbers are in ``members``. name: the user's word."""

    name: str
    kind: CapKind
    most: float
    members: tuple[int, ...]


@dataclass(frozen=True)
class Weights:
    """Of the objective: per J, USD and gCO2e."""

    energy: float = 1.0
    money: float = 0.0
    carbon: float = 0.0


@dataclass(frozen=True)
class Problem:
    """reserve: share of demand by which there is more capacity. n_minus: 0, or 1 for the loss of
    any one node."""

    groups: tuple[Group, ...]
    demands: tuple[Demand, ...]
    caps: tuple[Cap, ...] = ()
    weights: Weights = Weights()
    reserve: float = 0.0
    n_minus: int = 0
    slot_s: float = 3600.0
    gap: float = 1e-4
    time_limit_s: float = 60.0

    @property
    def slots(self) -> int:
        return len(self.groups[0].usd_per_j)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(sorted({demand.model for demand in self.demands}))

    def fastest(self, model: str) -> float:
        """Images/s of one node of the fastest group."""
        return max(group.fastest(model) for group in self.groups)

    def steady_rate(self, model: str) -> float:
        """The least constant images/s by which all of the model's deadlines are met.

        The processor demand criterion: the most work per time that comes and is due within any
        span. Longer spans than a cycle and the longest wait add nothing.
        """
        mine = [demand for demand in self.demands if demand.model == model]
        slots = self.slots
        highest = sum(sum(demand.images) for demand in mine) / slots
        longest = max(demand.slots for demand in mine)
        days = 2 + longest // slots + 1
        sums = {
            demand.name: np.array([0.0, *accumulate(demand.images * (days + 1))]) for demand in mine
        }
        for span in range(1, slots + longest + 1):
            within = np.zeros(slots)
            for demand in mine:
                if span > demand.slots:
                    upto = sums[demand.name]
                    starts = np.arange(slots)
                    within += upto[starts + span - demand.slots] - upto[starts]
            highest = max(highest, float(within.max()) / span)
        return highest / self.slot_s

    def useful_nodes(self, group: Group) -> int:
        """More nodes than this are never of use: they could do the cycle's work in one slot."""
        share = group.availability * self.slot_s
        work = 0.0
        for model in self.models:
            rate = group.fastest(model)
            images = sum(sum(demand.images) for demand in self.demands if demand.model == model)
            work += images / (rate * share) if rate else 0.0
        return int(np.ceil(work * (1.0 + self.reserve))) + 1 + self.n_minus


@dataclass(frozen=True)
class GroupPlan:
    """start: nodes owned now; end: nodes after retiring and buying."""

    group: Group
    start: int
    new: int
    retire: int

    @property
    def end(self) -> int:
        return self.start + self.new - self.retire


@dataclass(frozen=True)
class SlotPlan:
    """A group in a slot. awake, busy, idle, loading: nodes, on average. power_w: mean.
    peak_w: of whole nodes that run at once. images: by model."""

    group: int
    slot: int
    awake: float
    busy: float
    idle: float
    loading: float
    power_w: float
    peak_w: float
    images: dict[str, float]


@dataclass(frozen=True)
class Costs:
    """Per cycle: J, USD, gCO2e."""

    energy_j: float
    usd: float
    g: float


@dataclass(frozen=True)
class Plan:
    """parts: what the whole is made of, by name. value: of the objective; gap: to its bound."""

    status: Status
    groups: tuple[GroupPlan, ...]
    slots: tuple[SlotPlan, ...]
    parts: dict[str, Costs]
    value: float
    bound: float
    gap: float
    demand_share: float

    @property
    def total(self) -> Costs:
        parts = self.parts.values()
        return Costs(
            sum(p.energy_j for p in parts), sum(p.usd for p in parts), sum(p.g for p in parts)
        )

    @property
    def mix(self) -> dict[str, int]:
        """Nodes at the end by class, sorted by name; classes without any are left out."""
        found: dict[str, int] = {}
        for plan in self.groups:
            found[plan.group.name] = found.get(plan.group.name, 0) + plan.end
        return {name: found[name] for name in sorted(found) if found[name]}

    @property
    def peak_w(self) -> float:
        by_slot: dict[int, float] = {}
        for slot in self.slots:
            by_slot[slot.slot] = by_slot.get(slot.slot, 0.0) + slot.peak_w
        return max(by_slot.values(), default=0.0)


def obstacles(problem: Problem) -> list[str]:
    """Why no plan can be, by arithmetic alone; empty where arithmetic does not say."""
    found = []
    for model in problem.models:
        need = problem.steady_rate(model) * (1.0 + problem.reserve)
        most = _most_images_per_s(problem, model)
        if most < need * (1 - 1e-9):
            found.append(
                f"{model}: its deadlines need {need:,.4g} images/s"
                + (f" with the reserve of {problem.reserve:.0%}" if problem.reserve else "")
                + f", and all nodes that may be there make {most:,.4g}"
            )
    for cap in problem.caps:
        if cap.kind == "power_w":
            kept = sum(
                problem.groups[i].parked_w * problem.groups[i].owned
                for i in cap.members
                if not problem.groups[i].may_retire
            )
            if kept > cap.most:
                found.append(
                    f"{cap.name}: parked nodes that are not to be retired draw {kept:,.4g} W, "
                    f"over its {cap.most:,.4g} W"
                )
    return found


def _most_images_per_s(problem: Problem, model: str) -> float:
    """Of all nodes that may be there, without any limit but counts of their own."""
    total = 0.0
    counted: set[int] = set()
    for cap in problem.caps:
        inside = [problem.groups[i] for i in cap.members]
        if cap.kind == "count" and len({group.name for group in inside}) == 1:
            total += cap.most * max(g.fastest(model) * g.availability for g in inside)
            counted.update(cap.members)
    if any(g.fastest(model) for i, g in enumerate(problem.groups) if i not in counted):
        return math.inf
    whole = [cap.most for cap in problem.caps if cap.kind == "count" and _all(cap, problem)]
    best = max(group.fastest(model) * group.availability for group in problem.groups)
    return min([total, *(most * best for most in whole)])


def _all(cap: Cap, problem: Problem) -> bool:
    return len(cap.members) == len(problem.groups)


def cyclic(values: Sequence[float], slots: int) -> Floats:
    """For each slot, the sum of its own and the ``slots - 1`` values before it, around the day."""
    size = len(values)
    whole, rest = divmod(slots, size)
    sums = np.full(size, whole * float(sum(values)))
    for back in range(rest):
        sums += np.roll(np.array(values, dtype=np.float64), back)
    return sums
