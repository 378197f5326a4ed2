"""The plan: how many replicas of which hardware, at which point, for the demanded rates. Pure.

A merit order, as in a power grid: capacity is committed in order of its cost per image until the
demand is met. Running a committed device faster is a step in the same order, at its marginal cost
per image. Costs are joules, or the objective's unit.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from cluster.scheduler.policy import Policy
from cluster.scheduler.request import DemandKey, Performance
from cluster.scheduler.supply import Demand, Offer, Step, merit_order, power_mw, start_cost

ROUNDING = 1e-9  # share of a rate that is taken for a rounding error


@dataclass(frozen=True)
class Grant:
    """``nodes`` replicas of this hardware work for a demand, at this performance.

    cost: per image, start-up not included, in the objective's unit.
    """

    hardware: str
    nodes: int
    performance: Performance
    cost: float


@dataclass(frozen=True)
class Rival:
    """Hardware that was considered for a demand.

    cost: per image, start-up included. samples: measurements behind it. verdict: what was decided.
    """

    hardware: str
    cost: float
    samples: int
    verdict: str


@dataclass
class Plan:
    """What each demand gets, by its key. Made by ``make_plan``; not changed later."""

    #: Grants by demand and hardware.
    grants: dict[DemandKey, dict[str, Grant]] = field(default_factory=dict)
    #: Demands that wait, and the rate in images/s from which on they are served.
    hold_rate: dict[DemandKey, float] = field(default_factory=dict)
    #: Rate in images/s that a demand lacks because no hardware is left.
    shortfall: dict[DemandKey, float] = field(default_factory=dict)
    #: Hardware that was considered for a demand, cheapest first.
    rivals: dict[DemandKey, tuple[Rival, ...]] = field(default_factory=dict)
    #: Demands that are served faster than their deadlines require, ahead of expected work.
    ahead: set[DemandKey] = field(default_factory=set)

    @property
    def decided(self) -> object:
        """A value that is equal for plans that differ only in costs."""
        granted = {
            (*key, hardware): (grant.nodes, grant.performance.point)
            for key, grants in self.grants.items()
            for hardware, grant in grants.items()
        }
        return granted, set(self.hold_rate), set(self.shortfall), self.ahead, set(self.rivals)

    @property
    def power_mw(self) -> int:
        """Power of all grants, mW."""
        return sum(
            grant.nodes * power_mw(grant.performance)
            for grants in self.grants.values()
            for grant in grants.values()
        )

    def nodes(self, hardware: str, model: str) -> int:
        """Number of replicas of this hardware that the plan wants up with the model."""
        return sum(
            grants[hardware].nodes
            for key, grants in self.grants.items()
            if key.model == model and hardware in grants
        )


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


def make_plan(
    demands: Sequence[Demand],
    offers: Mapping[DemandKey, Sequence[Offer]],
    policy: Policy,
    cap_mw: int | None = None,
) -> Plan:
    """Serve the demands, in this order, from the offers to each.

    cap_mw: bound of the power of all grants. Takes time in proportion to demands x hardware x
    points, whatever the number of nodes, shards and jobs.
    """
    plan = Plan()
    free = {o.profile.hardware: o.nodes for own in offers.values() for o in own}
    room = _Room(free, math.inf if cap_mw is None else float(cap_mw))
    steps_of: dict[DemandKey, list[Step]] = {}
    served: list[Demand] = []
    for demand in demands:
        own = _within(room, offers.get(demand.key, ()))
        steps = steps_of[demand.key] = merit_order(demand, own)
        if _is_scarce(demand, steps, policy):
            worth = _speed(steps, policy.ahead_price * steps[0].order)
            if worth > demand.rate:
                demand = replace(demand, rate=min(demand.steady, worth))
                plan.ahead.add(demand.key)
        served.append(demand)
        held = _hold(demand, own, steps, policy)
        if held is not None:
            plan.hold_rate[demand.key] = held
        else:
            plan.grants[demand.key] = _serve(demand, steps, room, policy)
    for demand in served:  # only when all have what they need
        grants = plan.grants.get(demand.key)
        if grants is not None:
            _widen(demand, offers.get(demand.key, ()), grants, room, policy)
            missing = _shortfall(demand, steps_of[demand.key], grants, room)
            if missing > 0:
                plan.shortfall[demand.key] = missing
        plan.rivals[demand.key] = _rivals(steps_of[demand.key], grants)
    return plan


def _within(room: _Room, offers: Sequence[Offer]) -> list[Offer]:
    """The offers with those of their points that the power left allows on one replica."""
    fitting: list[Offer] = []
    for offer in offers:
        curve = tuple(p for p in offer.profile.curve if power_mw(p) <= room.left_mw)
        if curve:
            fitting.append(replace(offer, profile=replace(offer.profile, curve=curve)))
    return fitting


def _hold(
    demand: Demand, offers: Sequence[Offer], steps: Sequence[Step], policy: Policy
) -> float | None:
    """The rate up to which the demand had better wait; None if it is to be served now."""
    if not demand.patient or not steps or any(offer.up for offer in offers):
        return None
    first = steps[0]
    threshold = policy.hold_fill * first.performance.images_per_s
    standby = next(o.profile.standby for o in offers if o.profile.hardware == first.hardware)
    start = start_cost(standby, demand.objective)
    if demand.rate >= threshold or start <= policy.start_share * demand.images * first.cost:
        return None
    return threshold


def _serve(demand: Demand, steps: Sequence[Step], room: _Room, policy: Policy) -> dict[str, Grant]:
    """Grants in merit order until the rate is met."""
    grants: dict[str, Grant] = {}
    need, shards = demand.rate, demand.shards
    met = 0.0 if need == math.inf else ROUNDING * need
    for step in steps:
        if grants and need <= met:
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
                wanted,
                max(0 if grants else 1, math.ceil(need / rate - policy.round_down - ROUNDING)),
            )
        nodes = room.grant(step.hardware, wanted, power_mw(run.performance))
        if nodes > 0:
            need -= nodes * rate
            shards -= nodes
            grants[step.hardware] = replace(run, nodes=run.nodes + nodes)
    return grants


def _is_scarce(demand: Demand, steps: Sequence[Step], policy: Policy) -> bool:
    """Whether a busy spell would have to be served at a price that is worth working ahead for."""
    if demand.steady <= demand.rate:
        return False
    busy = _price(steps, demand.busy)
    return busy == math.inf or busy > policy.scarce * _price(steps, demand.steady)


def _price(steps: Sequence[Step], rate: float) -> float:
    """What one more image costs while all are made at this rate; inf beyond what there is."""
    return next((order for order, speed in _speeds(steps) if speed >= rate), math.inf)


def _speed(steps: Sequence[Step], price: float) -> float:
    """Images/s at which no image costs more than this."""
    return max((speed for order, speed in _speeds(steps) if order <= price), default=0.0)


def _speeds(steps: Sequence[Step]) -> Iterator[tuple[float, float]]:
    """The price of each step, and the images/s that it and those before it make."""
    nodes: dict[str, int] = defaultdict(int)
    each: dict[str, float] = {}
    for step in steps:
        nodes[step.hardware] += step.nodes
        each[step.hardware] = max(each.get(step.hardware, 0.0), step.performance.images_per_s)
        yield step.order, sum(count * each[hardware] for hardware, count in nodes.items())


def _widen(
    demand: Demand,
    offers: Sequence[Offer],
    grants: dict[str, Grant],
    room: _Room,
    policy: Policy,
) -> None:
    """Grant more replicas of the cheapest granted hardware while their start-up costs little: the
    work is done sooner, and the hardware is free for later work."""
    shards = demand.shards - sum(grant.nodes for grant in grants.values())
    best = min((grant.cost for grant in grants.values()), default=0.0)
    for offer in offers:
        grant = grants.get(offer.profile.hardware)
        if grant is None or grant.cost > best:
            continue
        start = start_cost(offer.profile.standby, demand.objective)
        budget = policy.start_share * demand.images * grant.cost
        worth = offer.nodes if start <= 0 else int(min(offer.nodes, budget / start))
        wanted = min(max(worth, offer.up) - grant.nodes, shards)
        more = room.grant(grant.hardware, wanted, power_mw(grant.performance))
        if more > 0:
            shards -= more
            grants[grant.hardware] = replace(grant, nodes=grant.nodes + more)


def _shortfall(
    demand: Demand, steps: Sequence[Step], grants: Mapping[str, Grant], room: _Room
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


def _rivals(steps: Sequence[Step], grants: Mapping[str, Grant] | None) -> tuple[Rival, ...]:
    """Every hardware once, cheapest first, with what was decided of it; grants: None if held."""
    rivals: dict[str, Rival] = {}
    for step in steps:
        if step.upgrade or step.hardware in rivals:
            continue
        grant = None if grants is None else grants.get(step.hardware)
        verdict = f"{grant.nodes} used" if grant else "held" if grants is None else "not needed"
        rivals[step.hardware] = Rival(step.hardware, step.order, step.performance.samples, verdict)
    return tuple(rivals.values())
