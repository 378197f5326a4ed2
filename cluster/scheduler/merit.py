"""The merit order: which hardware, how many of it and at which point, for the rates needed. Pure.

As in a power grid: capacity is committed in order of what an image costs on it until the need is
met; then committed devices are run faster, cheapest marginal joule first. The order of both kinds
of steps is one. Costs are joules, or what the objective counts instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import Profile
from cluster.scheduler.terms import Objective, Performance, Standing

J_PER_KWH = 3.6e6


@dataclass(frozen=True)
class Demand:
    """What the jobs of one model and objective need from now on.

    rate: images/s that meet all deadlines, reserve included; inf is as fast as can be.
    images: left to make. patient: nothing is lost by waiting while the rate is small.
    """

    model: str
    objective: Objective
    rate: float
    images: int
    patient: bool

    @property
    def key(self) -> tuple[str, Objective]:
        return self.model, self.objective


@dataclass(frozen=True)
class Offer:
    """One hardware for one model: nodes in all that may be used, and those already up with it."""

    profile: Profile
    nodes: int
    up: int


@dataclass(frozen=True)
class Grant:
    """So many replicas of this hardware work for the demand, at this point. cost: of an image
    there, without start-up, in the objective's unit."""

    hardware: str
    nodes: int
    performance: Performance
    cost: float


@dataclass(frozen=True)
class Rival:
    """Hardware that was considered: what an image would cost there, start-up included, and what
    was decided."""

    hardware: str
    cost: float
    samples: int
    verdict: str


@dataclass
class Plan:
    """Grants by demand and hardware. hold_rate: of demands that wait until their need reaches it.

    shortfall: images/s that no hardware is left for.
    """

    grants: dict[tuple[str, Objective], dict[str, Grant]] = field(default_factory=dict)
    hold_rate: dict[tuple[str, Objective], float] = field(default_factory=dict)
    shortfall: dict[tuple[str, Objective], float] = field(default_factory=dict)
    rivals: dict[tuple[str, Objective], tuple[Rival, ...]] = field(default_factory=dict)

    def nodes(self, hardware: str, model: str) -> int:
        """Replicas of this hardware that the plan wants up with the model."""
        return sum(
            grants[hardware].nodes
            for (of_model, _), grants in self.grants.items()
            if of_model == model and hardware in grants
        )


def image_cost(performance: Performance, standing: Standing, objective: Objective) -> float:
    """What an image costs at this point in the objective's unit: J, g CO2e, currency, seconds."""
    if objective == "carbon":
        return performance.energy_per_image_j * standing.carbon_g_per_kwh / J_PER_KWH
    if objective == "cost":
        return standing.price_per_h / 3600 / performance.images_per_s
    if objective == "throughput":
        return 1 / performance.images_per_s
    return performance.energy_per_image_j


def start_cost(standing: Standing, objective: Objective) -> float:
    """What one start-up costs in the objective's unit."""
    if objective == "carbon":
        return standing.load_j * standing.carbon_g_per_kwh / J_PER_KWH
    if objective == "cost":
        return standing.price_per_h / 3600 * standing.load_s
    return 0.0 if objective == "throughput" else standing.load_j


@dataclass(frozen=True)
class _Step:
    """Wake or keep up to ``nodes`` replicas; or, for an upgrade, run the granted ones faster."""

    order: float
    hardware: str
    performance: Performance
    cost: float
    nodes: int = 0
    upgrade: bool = False


def make_plan(
    demands: Sequence[Demand],
    offers: Mapping[str, Sequence[Offer]],
    policy: Policy,
    cap_mw: int | None = None,
) -> Plan:
    """Serve the demands in this order from the offers, by model. cap_mw bounds all grants' power.

    Work grows with demands x hardware x points, not with nodes, shards or jobs.
    """
    plan = Plan()
    free = {o.profile.hardware: o.nodes for own in offers.values() for o in own}
    left_mw = math.inf if cap_mw is None else float(cap_mw)
    for demand in demands:
        own = [o for o in offers.get(demand.model, ()) if o.profile.curve]
        steps = sorted(_steps(demand, own), key=lambda s: (s.order, s.hardware, s.upgrade))
        held = _hold(demand, own, steps, policy)
        if held is not None:
            plan.hold_rate[demand.key] = held
            plan.rivals[demand.key] = _rivals(steps, {}, held=True)
            continue
        grants, left_mw = _serve(demand, own, steps, free, left_mw, policy)
        made = sum(g.nodes * g.performance.images_per_s for g in grants.values())
        if made < demand.rate < math.inf:
            plan.shortfall[demand.key] = demand.rate - made
        for grant in grants.values():
            free[grant.hardware] -= grant.nodes
        plan.grants[demand.key] = grants
        plan.rivals[demand.key] = _rivals(steps, grants, held=False)
    return plan


def _steps(demand: Demand, offers: Sequence[Offer]) -> list[_Step]:
    """All steps that could serve the demand. Measured ones win where an estimate's bounds leave
    open which is better."""
    steps: list[_Step] = []
    for offer in offers:
        hardware, standing = offer.profile.hardware, offer.profile.standing
        best, *faster = frontier(offer.profile, demand.objective)
        cost = image_cost(best, standing, demand.objective)
        if offer.up:
            steps.append(_Step(cost, hardware, best, cost, min(offer.up, offer.nodes)))
        if offer.nodes > offer.up:
            served = demand.images
            if 0 < demand.rate < math.inf:  # until the deadline that sets the rate
                served = min(served, int(demand.images * best.images_per_s / demand.rate))
            start = start_cost(standing, demand.objective) / max(1, served)
            steps.append(_Step(cost + start, hardware, best, cost, offer.nodes - offer.up))
        slower = best
        for point in faster:
            gain = point.images_per_s - slower.images_per_s
            total = image_cost(point, standing, demand.objective) * point.images_per_s
            more = total - image_cost(slower, standing, demand.objective) * slower.images_per_s
            order = max(more / gain, cost)
            point_cost = image_cost(point, standing, demand.objective)
            steps.append(_Step(order, hardware, point, point_cost, upgrade=True))
            slower = point
    return [_tied(step, steps) for step in steps]


def _tied(step: _Step, steps: Sequence[_Step]) -> _Step:
    """An estimate whose bounds reach up to a measured figure gets in line just behind it."""
    low, high = step.performance.low_j, step.performance.high_j
    if step.performance.quality != "estimated" or low is None or high is None:
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
    """The point that makes images cheapest, then faster ones by rising marginal cost: the convex
    hull of cost per second over images per second."""
    standing = profile.standing

    def cost_per_s(p: Performance) -> float:
        return image_cost(p, standing, objective) * p.images_per_s

    at = min(
        profile.curve, key=lambda p: (image_cost(p, standing, objective), -p.images_per_s, p.point)
    )
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


def _hold(
    demand: Demand, offers: Sequence[Offer], steps: Sequence[_Step], policy: Policy
) -> float | None:
    """The rate up to which the demand had better wait; None if it is to be served now."""
    if not demand.patient or not steps or any(offer.up for offer in offers):
        return None
    first = steps[0]
    threshold = policy.hold_fill * first.performance.images_per_s
    standing = next(o.profile.standing for o in offers if o.profile.hardware == first.hardware)
    start = start_cost(standing, demand.objective)
    if demand.rate >= threshold or start <= policy.start_share * demand.images * first.cost:
        return None
    return threshold


def _serve(
    demand: Demand,
    offers: Sequence[Offer],
    steps: Sequence[_Step],
    free: Mapping[str, int],
    left_mw: float,
    policy: Policy,
) -> tuple[dict[str, Grant], float]:
    """Grants in merit order until the rate is met, and the power that is left."""
    grants: dict[str, Grant] = {}
    need = demand.rate
    for step in steps:
        if grants and need <= 0:
            break
        held = grants.get(step.hardware)
        rate, each_mw = step.performance.images_per_s, power_mw(step.performance)
        if step.upgrade:
            if held is None:
                continue
            extra_mw = held.nodes * (each_mw - power_mw(held.performance))
            if extra_mw <= left_mw:
                left_mw -= extra_mw
                need -= held.nodes * (rate - held.performance.images_per_s)
                grants[step.hardware] = replace(held, performance=step.performance, cost=step.cost)
            continue
        used = held.nodes if held else 0
        room = min(step.nodes, free[step.hardware] - used, _fits(left_mw, each_mw))
        wanted = room if need == math.inf else max(0, math.ceil(need / rate - policy.round_down))
        nodes = min(room, wanted if grants else max(1, wanted))
        if nodes > 0:
            left_mw -= nodes * each_mw
            need -= nodes * rate
            grants[step.hardware] = Grant(step.hardware, used + nodes, step.performance, step.cost)
    return _widen(demand, offers, grants, free, left_mw, policy)


def _widen(
    demand: Demand,
    offers: Sequence[Offer],
    grants: dict[str, Grant],
    free: Mapping[str, int],
    left_mw: float,
    policy: Policy,
) -> tuple[dict[str, Grant], float]:
    """More replicas of what is granted anyway, as far as their start-up is a trifle: done sooner,
    later work has the cheap hardware to itself."""
    for offer in offers:
        grant = grants.get(offer.profile.hardware)
        if grant is None:
            continue
        start = start_cost(offer.profile.standing, demand.objective)
        budget = policy.start_share * demand.images * grant.cost
        worth = offer.nodes if start <= 0 else int(min(offer.nodes, budget / start))
        each_mw = power_mw(grant.performance)
        more = min(
            max(worth, offer.up) - grant.nodes,
            free[grant.hardware] - grant.nodes,
            _fits(left_mw, each_mw),
        )
        if more > 0:
            left_mw -= more * each_mw
            grants[grant.hardware] = replace(grant, nodes=grant.nodes + more)
    return grants, left_mw


def power_mw(performance: Performance) -> int:
    """Its power in whole milliwatts, rounded up."""
    return math.ceil(performance.power_w * 1000)


def _fits(left_mw: float, each_mw: int) -> int:
    return 2**31 if left_mw == math.inf or each_mw <= 0 else max(0, int(left_mw // each_mw))


def _rivals(
    steps: Sequence[_Step], grants: Mapping[str, Grant], *, held: bool
) -> tuple[Rival, ...]:
    """Every hardware once, cheapest first, with what was decided of it."""
    rivals: dict[str, Rival] = {}
    for step in steps:
        if step.upgrade or step.hardware in rivals:
            continue
        grant = grants.get(step.hardware)
        verdict = f"{grant.nodes} used" if grant else "held" if held else "not needed"
        rivals[step.hardware] = Rival(step.hardware, step.order, step.performance.samples, verdict)
    return tuple(rivals.values())
