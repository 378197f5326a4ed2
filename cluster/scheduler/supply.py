"""The hardware that can serve a demand, in order of cost per image. Pure."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import DemandKey, Objective, Performance, StandbyCost
from cluster.types import DEFAULT_ENCODING

J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Demand:
    """What the jobs of one model, objective and encoding require from now on.

    rate: images/s that meets all deadlines, reserve included; inf: as fast as possible.
    images: still to generate. shards: that they are in, the most replicas that can share them.
    patient: waiting costs nothing while the rate is small. relaxed: no deadline is near.
    steady: images/s of the steadiest schedule for this and all expected work; at least ``rate``.
    busy: the same if one standard deviation more work arrives. Both 0: nothing is expected.
    """

    model: str
    objective: Objective
    rate: float
    images: int
    patient: bool
    shards: int = sys.maxsize
    relaxed: bool = True
    steady: float = 0.0
    busy: float = 0.0
    encoding: str = DEFAULT_ENCODING

    @property
    def key(self) -> DemandKey:
        return DemandKey(self.model, self.objective, self.encoding)


@dataclass(frozen=True)
class Offer:
    """One hardware class for one model and encoding. nodes: replicas that may be used; up: those of
    them that hold or load the model."""

    profile: Profile
    nodes: int
    up: int


@dataclass(frozen=True)
class Step:
    """Wake or keep up to ``nodes`` replicas; or, for an upgrade, run the granted ones faster."""

    order: float
    hardware: str
    performance: Performance
    cost: float
    nodes: int = 0
    upgrade: bool = False


def merit_order(demand: Demand, offers: Sequence[Offer]) -> list[Step]:
    """All steps that can serve the demand, in merit order. A measured step goes before an
    estimated one if the estimate's bounds leave open which of them costs less."""
    chains = [_chain(demand, offer) for offer in offers]
    steps = [step for chain in chains for step in chain]
    in_joules = demand.objective in ("energy", "deadline", "carbon")
    ordered: list[Step] = []
    for chain in chains:
        tied = [_tied(step, steps) for step in chain] if in_joules else chain
        least = tied[0].order  # a device is had before it is run faster
        for step in tied:
            least = max(least, step.order) if step.upgrade else least
            ordered.append(replace(step, order=least) if step.upgrade else step)
    return sorted(ordered, key=lambda s: (s.order, s.hardware, s.upgrade))


def _chain(demand: Demand, offer: Offer) -> list[Step]:
    """The steps of one hardware: those up, those parked, then faster and faster points."""
    hardware, standby = offer.profile.hardware, offer.profile.standby
    best, *faster = frontier(offer.profile, demand.objective)
    cost = image_cost(best, standby, demand.objective)
    chain: list[Step] = []
    if offer.up:
        chain.append(Step(cost, hardware, best, cost, min(offer.up, offer.nodes)))
    if offer.nodes > offer.up:
        served = demand.images
        if 0 < demand.rate < math.inf:  # until the deadline that sets the rate
            served = int(min(served, demand.images * best.images_per_s / demand.rate))
        start = start_cost(standby, demand.objective) / max(1, served)
        chain.append(Step(cost + start, hardware, best, cost, offer.nodes - offer.up))
    slower = best
    for point in faster:
        point_cost = image_cost(point, standby, demand.objective)
        more = point_cost * point.images_per_s
        more -= image_cost(slower, standby, demand.objective) * slower.images_per_s
        order = more / (point.images_per_s - slower.images_per_s)
        chain.append(Step(order, hardware, point, point_cost, upgrade=True))
        slower = point
    return chain


def _tied(step: Step, steps: Sequence[Step]) -> Step:
    """An estimate whose bounds reach up to a measured figure gets in line just behind it."""
    low, high = step.performance.low_j, step.performance.high_j
    if step.performance.quality != "estimated" or low is None or high is None or step.order <= 0:
        return step
    own_j = step.performance.energy_per_image_j
    behind = [
        other.order
        for other in steps
        if other.performance.quality in ("measured_counter", "measured_power")
        and other.order > step.order
        and low <= other.order * own_j / step.order <= high
    ]
    return replace(step, order=math.nextafter(max(behind), math.inf)) if behind else step


def frontier(profile: Profile, objective: Objective) -> list[Performance]:
    """The point of lowest cost per image, then faster ones by rising marginal cost: the lower
    convex hull of cost per second over images per second."""
    standby = profile.standby

    def cost_per_s(p: Performance) -> float:
        return image_cost(p, standby, objective) * p.images_per_s

    at = min(profile.curve, key=lambda p: (image_cost(p, standby, objective), -p.images_per_s))
    hull = [at]
    while faster := [p for p in profile.curve if p.images_per_s > at.images_per_s]:
        base = at
        at = min(
            faster,
            key=lambda p: (
                (cost_per_s(p) - cost_per_s(base)) / (p.images_per_s - base.images_per_s),
                -p.images_per_s,
            ),
        )
        hull.append(at)
    return hull


def image_cost(performance: Performance, standby: StandbyCost, objective: Objective) -> float:
    """What an image costs at this point in the objective's unit: J, g CO2e, currency, seconds."""
    if objective == "carbon":
        return performance.energy_per_image_j * standby.carbon_g_per_kwh / J_PER_KWH
    if objective == "cost":
        return standby.price_per_h / 3600 / performance.images_per_s
    if objective == "throughput":
        return 1 / performance.images_per_s
    return performance.energy_per_image_j


def start_cost(standby: StandbyCost, objective: Objective) -> float:
    """What one start-up costs in the objective's unit."""
    if objective == "carbon":
        return standby.load_j * standby.carbon_g_per_kwh / J_PER_KWH
    if objective == "cost":
        return standby.price_per_h / 3600 * standby.load_s
    return 0.0 if objective == "throughput" else standby.load_j


def power_mw(performance: Performance) -> int:
    """Its power in whole milliwatts, rounded up."""
    return math.ceil(performance.power_w * 1000)
