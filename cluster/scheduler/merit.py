"""The merit order: which hardware, how many of it and at which point, for the rates needed. Pure.

As in a power grid: capacity is committed in order of what an image costs on it until the need is
met; then committed devices are run faster, cheapest marginal joule first. The order of both kinds
of steps is one. Costs are joules, or what the objective counts instead.
"""

from __future__ import annotations

import math
import sys
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
    images: left to make. patient: nothing is lost by waiting while the rate is small. shards: that
    they are in, so that no more replicas than that can be of use. relaxed: no deadline is near.
    """

    model: str
    objective: Objective
    rate: float
    images: int
    patient: bool
    shards: int = sys.maxsize
    relaxed: bool = True

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

    @property
    def power_mw(self) -> int:
        """What all that is granted may draw."""
        return sum(
            grant.nodes * power_mw(grant.performance)
            for grants in self.grants.values()
            for grant in grants.values()
        )

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


@dataclass
class _Room:
    """What is left to grant: nodes by hardware, and power."""

    free: dict[str, int]
    left_mw: float

    def grant(self, hardware: str, most: int, each_mw: int) -> int:
        """Take up to so many nodes; how many there was room for."""
        nodes = max(0, min(most, self.free[hardware]))
        if self.left_mw != math.inf and each_mw > 0:
            nodes = min(nodes, int(max(0.0, self.left_mw) // each_mw))
        self.free[hardware] -= nodes
        self.left_mw -= nodes * each_mw
        return nodes


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
    room = _Room(free, math.inf if cap_mw is None else float(cap_mw))
    steps_of: dict[tuple[str, Objective], list[_Step]] = {}
    for demand in demands:
        own = [o for o in offers.get(demand.model, ()) if o.profile.curve]
        steps = steps_of[demand.key] = _steps(demand, own)
        held = _hold(demand, own, steps, policy)
        if held is not None:
            plan.hold_rate[demand.key] = held
        else:
            plan.grants[demand.key] = _serve(demand, steps, room, policy)
    for demand in demands:  # only when all have what they need
        grants = plan.grants.get(demand.key)
        if grants is not None:
            _widen(demand, offers.get(demand.model, ()), grants, room, policy)
            missing = _shortfall(demand, steps_of[demand.key], grants, room)
            if missing > 0:
                plan.shortfall[demand.key] = missing
        plan.rivals[demand.key] = _rivals(steps_of[demand.key], grants)
    return plan


def _steps(demand: Demand, offers: Sequence[Offer]) -> list[_Step]:
    """All steps that could serve the demand, in merit order. Measured ones win where an estimate's
    bounds leave open which is better."""
    chains = [_chain(demand, offer) for offer in offers]
    steps = [step for chain in chains for step in chain]
    in_joules = demand.objective in ("energy", "deadline", "carbon")
    ordered: list[_Step] = []
    for chain in chains:
        tied = [_tied(step, steps) for step in chain] if in_joules else chain
        least = tied[0].order  # a device is had before it is run faster
        for step in tied:
            least = max(least, step.order) if step.upgrade else least
            ordered.append(replace(step, order=least) if step.upgrade else step)
    return sorted(ordered, key=lambda s: (s.order, s.hardware, s.upgrade))


def _chain(demand: Demand, offer: Offer) -> list[_Step]:
    """The steps of one hardware: those up, those parked, then faster and faster points."""
    hardware, standing = offer.profile.hardware, offer.profile.standing
    best, *faster = frontier(offer.profile, demand.objective)
    cost = image_cost(best, standing, demand.objective)
    chain: list[_Step] = []
    if offer.up:
        chain.append(_Step(cost, hardware, best, cost, min(offer.up, offer.nodes)))
    if offer.nodes > offer.up:
        served = demand.images
        if 0 < demand.rate < math.inf:  # until the deadline that sets the rate
            served = min(served, int(demand.images * best.images_per_s / demand.rate))
        start = start_cost(standing, demand.objective) / max(1, served)
        chain.append(_Step(cost + start, hardware, best, cost, offer.nodes - offer.up))
    slower = best
    for point in faster:
        point_cost = image_cost(point, standing, demand.objective)
        more = point_cost * point.images_per_s
        more -= image_cost(slower, standing, demand.objective) * slower.images_per_s
        order = more / (point.images_per_s - slower.images_per_s)
        chain.append(_Step(order, hardware, point, point_cost, upgrade=True))
        slower = point
    return chain


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


def _serve(demand: Demand, steps: Sequence[_Step], room: _Room, policy: Policy) -> dict[str, Grant]:
    """Grants in merit order until the rate is met."""
    grants: dict[str, Grant] = {}
    need, shards = demand.rate, demand.shards
    for step in steps:
        if grants and need <= 0:
            break
        held = grants.get(step.hardware)
        if step.upgrade:
            if held is not None:
                before, after = held.performance, step.performance
                extra_mw = held.nodes * (power_mw(after) - power_mw(before))
                if extra_mw <= room.left_mw:
                    room.left_mw -= extra_mw
                    need -= held.nodes * (after.images_per_s - before.images_per_s)
                    grants[step.hardware] = replace(held, performance=after, cost=step.cost)
            continue
        run = held or Grant(step.hardware, 0, step.performance, step.cost)  # all at one point
        rate = run.performance.images_per_s
        wanted = min(step.nodes, shards)
        if need < math.inf:
            wanted = min(
                wanted, max(0 if grants else 1, math.ceil(need / rate - policy.round_down))
            )
        nodes = room.grant(step.hardware, wanted, power_mw(run.performance))
        if nodes > 0:
            need -= nodes * rate
            shards -= nodes
            grants[step.hardware] = replace(run, nodes=run.nodes + nodes)
    return grants


def _widen(
    demand: Demand,
    offers: Sequence[Offer],
    grants: dict[str, Grant],
    room: _Room,
    policy: Policy,
) -> None:
    """More replicas of what is granted anyway, as far as their start-up is a trifle: done sooner,
    later work has the cheap hardware to itself."""
    shards = demand.shards - sum(grant.nodes for grant in grants.values())
    for offer in offers:
        grant = grants.get(offer.profile.hardware)
        if grant is None:
            continue
        start = start_cost(offer.profile.standing, demand.objective)
        budget = policy.start_share * demand.images * grant.cost
        worth = offer.nodes if start <= 0 else int(min(offer.nodes, budget / start))
        wanted = min(max(worth, offer.up) - grant.nodes, shards)
        more = room.grant(grant.hardware, wanted, power_mw(grant.performance))
        if more > 0:
            shards -= more
            grants[grant.hardware] = replace(grant, nodes=grant.nodes + more)


def _shortfall(
    demand: Demand, steps: Sequence[_Step], grants: Mapping[str, Grant], room: _Room
) -> float:
    """Images/s of the demand that no hardware is left for; 0 if some is left, or all it could use
    is granted."""
    made = sum(g.nodes * g.performance.images_per_s for g in grants.values())
    if not made < demand.rate < math.inf:
        return 0.0
    if sum(grant.nodes for grant in grants.values()) >= demand.shards:
        return 0.0
    for step in steps:
        each_mw = power_mw(step.performance)
        if not step.upgrade and room.free[step.hardware] > 0 and each_mw <= room.left_mw:
            return 0.0
    return demand.rate - made


def power_mw(performance: Performance) -> int:
    """Its power in whole milliwatts, rounded up."""
    return math.ceil(performance.power_w * 1000)


def _rivals(steps: Sequence[_Step], grants: Mapping[str, Grant] | None) -> tuple[Rival, ...]:
    """Every hardware once, cheapest first, with what was decided of it; grants: None if held."""
    rivals: dict[str, Rival] = {}
    for step in steps:
        if step.upgrade or step.hardware in rivals:
            continue
        grant = None if grants is None else grants.get(step.hardware)
        verdict = f"{grant.nodes} used" if grant else "held" if grants is None else "not needed"
        rivals[step.hardware] = Rival(step.hardware, step.order, step.performance.samples, verdict)
    return tuple(rivals.values())
