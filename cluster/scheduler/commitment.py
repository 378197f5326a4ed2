"""Unit commitment: make the plan, wake what it wants, park what it does not, hold, probe. Pure."""

from __future__ import annotations

import math
from collections import defaultdict

from cluster.scheduler.backlog import Job
from cluster.scheduler.commands import ParkReplica, TellUser, WakeReplica
from cluster.scheduler.core import Core
from cluster.scheduler.demand import Standby, by_urgency, demands, hold_until_s
from cluster.scheduler.dispatch import (
    feed,
    feed_all,
    probe_images,
    probe_point,
    room_to_probe_j,
    work_to_probe,
)
from cluster.scheduler.explain import demand_name
from cluster.scheduler.fleet import Slot
from cluster.scheduler.plan import make_plan
from cluster.scheduler.request import DemandKey, Performance
from cluster.scheduler.supply import Demand, Offer, power_mw
from cluster.states import ReplicaState

REPLAN_AT_LEAST_S = 0.05  # however much happens


def replan(core: Core) -> None:
    """Make a new plan and act on it. Takes time linear in jobs and in kinds of hardware."""
    core.stale = False
    core.planned_s, core.plan_at_s = core.now_s, math.inf
    open_jobs = [job for job in core.jobs.values() if not job.stopping]
    wanted = dict.fromkeys(job.request.demand for job in open_jobs)
    offers = {demand: core.offers(demand) for demand in wanted}
    standby = {demand: _standby(own) for demand, own in offers.items()}
    needs = demands(open_jobs, core.now_s, standby, core.policy, core.forecast)
    before = core.plan.decided
    core.plan = make_plan(needs, offers, core.policy, core.cap_mw)
    if core.plan.decided != before:
        core.plan_number += 1
        for need in needs:
            name, rivals = demand_name(*need.key), core.plan.rivals[need.key]
            core.note("plan", _purpose(core, need), demand=name, rivals=rivals)
    fair = bool(core.plan.shortfall)
    core.order = defaultdict(dict)
    for job in by_urgency(open_jobs, core.served_j, core.now_s, core.policy, fair=fair):
        if job.has_work:
            core.order[job.request.model][job.request.job_id] = job
    _wake_and_switch(core)
    _make_room(core)
    feed_all(core)
    _probe(core, needs)
    _tell(core, needs, offers, standby)
    if open_jobs:
        core.plan_by(core.now_s + core.policy.replan_s)


def _purpose(core: Core, need: Demand) -> str:
    """What the plan does about a demand, in words."""
    if need.key in core.plan.ahead:
        return f"deadlines ask for {need.rate:.3g} images/s, and it works ahead of a rush"
    if need.key in core.plan.hold_rate:
        return f"deadlines ask for {need.rate:.3g} images/s, and it can wait"
    if need.rate == math.inf:
        return "as fast as can be"
    return f"deadlines ask for {need.rate:.3g} images/s" if need.rate else "no deadline: cheaply"


def _standby(offers: list[Offer]) -> Standby:
    return Standby(
        sum(o.up * max((p.images_per_s for p in o.profile.curve), default=0.0) for o in offers),
        max((o.profile.standby.load_s for o in offers), default=0.0),
    )


def _wake_and_switch(core: Core) -> None:
    """Wake replicas where the plan wants more than are up; park idle ones with another model."""
    wanted: dict[tuple[str, str], Performance] = {}
    for demand, grants in core.plan.grants.items():
        for hardware, grant in grants.items():
            wanted.setdefault((hardware, demand.model), grant.performance)
    for (hardware, model), performance in wanted.items():
        group = core.fleet.groups[hardware]
        lacking = core.plan.nodes(hardware, model) - group.up_with(model)
        for slot in core.fleet.parked(hardware, lacking):
            if not wake(core, slot, model, performance):
                break
            lacking -= 1
        for other in list(group.up):
            surplus = group.up_with(other) - core.plan.nodes(hardware, other)
            for slot in core.fleet.with_assignments(hardware, other, 0, min(surplus, lacking)):
                park(core, slot, f"makes room for {model}")
                lacking -= 1


def wake(core: Core, slot: Slot, model: str, performance: Performance) -> bool:
    """Have the replica load the model; False if the power cap has no room for it."""
    draw_mw = power_mw(performance)
    if core.cap_mw is not None and core.fleet.power_mw + draw_mw > core.cap_mw:
        return False
    core.learn_gap(slot)
    with core.fleet.changing(slot):
        slot.state, slot.model, slot.point = ReplicaState.WAKING, model, performance.point
        slot.power_mw, slot.since_s = draw_mw, core.now_s
        slot.why = "the plan wants it"
    core.note("wake", slot.why, slot)
    core.out.append(WakeReplica(slot.replica_id, model, performance.point))
    return True


def park(core: Core, slot: Slot, why: str) -> None:
    """Have an idle replica unload its model. Its power stays counted until it has."""
    with core.fleet.changing(slot):
        slot.state, slot.why = ReplicaState.PARKING, why
    core.note("park", why, slot)
    core.out.append(ParkReplica(slot.replica_id))


def park_if_idle(core: Core, slot: Slot) -> None:
    """Its time to stay idle has passed: park it, unless there is work for it."""
    slot.look_s = -1.0
    if not slot.idle:
        return
    due_s = slot.since_s + core.patience_s(slot)
    if core.now_s < due_s - 1e-9:  # it was idle before, and is again
        core.rest(slot)
        return
    if feed(core, slot):
        return
    waiting = any(job.has_work for job in core.jobs.values() if job.request.model == slot.model)
    park(core, slot, "cheaper hardware suffices" if waiting else "no work for its model")


def _make_room(core: Core) -> None:
    """Free power under a cap. Does nothing without one.

    Idle replicas that the plan does not use park if the plan needs their power. If the fleet is
    still above the cap, idle replicas that the plan uses are set to their slowest point.
    """
    if core.cap_mw is None:
        return
    surplus: list[Slot] = []
    for hardware, group in core.fleet.groups.items():
        for model in list(group.up):
            most = group.up_with(model) - core.plan.nodes(hardware, model)
            surplus += core.fleet.with_assignments(hardware, model, 0, most)
    if core.plan.power_mw + sum(slot.power_mw for slot in surplus) > core.cap_mw:
        for slot in surplus:
            park(core, slot, "its power is needed elsewhere")
    if core.fleet.power_mw <= core.cap_mw:
        return
    for demand, grants in core.plan.grants.items():
        for hardware, grant in grants.items():
            profile = core.book.profile(hardware, demand.model, demand.encoding)
            slowest_mw = [power_mw(p) for p in profile.curve] if profile else []
            for slot in core.fleet.with_assignments(hardware, demand.model, 0, grant.nodes):
                with core.fleet.changing(slot):
                    slot.power_mw = min(slot.power_mw, *slowest_mw)


def _probe(core: Core, needs: list[Demand]) -> None:
    """Measure hardware that was never measured with a model, if it may be the cheapest.

    Only with work that can wait, one replica at a time, and for at most a small share of all
    energy spent.
    """
    probing = core.fleet.slots.get(core.probing)
    if probing is not None and (probing.probe or any(held.probe for held in probing.assignments)):
        return
    for need in needs:
        grants = core.plan.grants.get(need.key)
        job = work_to_probe(core, need.model, need.encoding)
        if need.objective != "energy" or not need.relaxed or need.key in core.plan.shortfall:
            continue
        if not grants or job is None:
            continue
        best = min(grant.cost for grant in grants.values())
        for offer in core.offers(need.key):
            for point in _hopeful(offer, best, granted=offer.profile.hardware in grants):
                takes_j = probe_images(core, job, point) * point.energy_per_image_j
                if _probe_on(core, need, offer, point, takes_j):
                    return


def _hopeful(offer: Offer, best_j: float, *, granted: bool) -> list[Performance]:
    """Unmeasured points that may take fewer joules per image than the best known one."""
    if granted and len(offer.profile.curve) == 1:
        return []  # its work will tell
    return [
        point
        for point in offer.profile.curve
        if not point.samples
        and (point.energy_per_image_j / 2 if point.low_j is None else point.low_j) < best_j
    ]


def _probe_on(core: Core, need: Demand, offer: Offer, point: Performance, takes_j: float) -> bool:
    """Probe an idle replica, or wake one to be probed when it is up."""
    hardware, model = offer.profile.hardware, offer.profile.model
    for slot in core.fleet.with_assignments(hardware, model, 0):
        return probe_point(core, slot, point.point, need.encoding)
    load_j = offer.profile.standby.load_j
    if offer.up or takes_j + load_j > room_to_probe_j(core):
        return False
    for slot in core.fleet.parked(hardware):
        if wake(core, slot, model, point):
            slot.probe, core.probing = True, slot.replica_id
            core.probed_j += load_j
            return True
    return False


def _tell(
    core: Core,
    needs: list[Demand],
    offers: dict[DemandKey, list[Offer]],
    standby: dict[DemandKey, Standby],
) -> None:
    """Tell users why their jobs stand still, and when to look again."""
    held_s: dict[DemandKey, float] = {}
    for need in needs:
        rate = core.plan.hold_rate.get(need.key)
        if rate is not None:
            margin_s = core.policy.assignment_s + standby[need.key].load_s
            until_s = hold_until_s(core.jobs.values(), need.key, rate, margin_s, core.policy)
            held_s[need.key] = max(0.0, until_s - core.now_s)
            core.plan_by(max(until_s, core.now_s + REPLAN_AT_LEAST_S))
    for job in core.jobs.values():
        if job.stopping:
            continue
        if offers[job.request.demand]:
            job.alone_s = None
        elif job.alone_s is None:
            job.alone_s = core.now_s
        _say(core, job, held_s.get(job.request.demand))


def _say(core: Core, job: Job, held_s: float | None) -> None:
    reason = ""
    if held_s is not None:
        reason = "held, so that one start-up serves more images"
    elif not job.assignments:
        if job.alone_s is not None:
            reason = f"no live replica can run {job.request.model}"
        elif not core.plan.grants.get(job.request.demand):
            reason = "higher-ranked jobs or the power cap leave no replica for it"
    if reason == job.notified:
        return
    job.notified = reason
    core.out.append(TellUser(job.request.job_id, reason))
    if held_s is not None:
        why = f"for up to {held_s:.0f} s, while deadlines allow"
        core.note("hold", why, job_id=job.request.job_id)
