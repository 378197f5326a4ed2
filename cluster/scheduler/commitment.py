"""Unit commitment: make the plan, wake what it wants, park what it does not, hold, probe. Pure."""

from __future__ import annotations

import math
from collections import defaultdict

from cluster.scheduler.backlog import Job
from cluster.scheduler.commands import ParkReplica, TellUser, WakeReplica
from cluster.scheduler.core import Core
from cluster.scheduler.dispatch import feed, feed_all, probe_point
from cluster.scheduler.fleet import Replica
from cluster.scheduler.merit import Demand, make_plan, power_mw
from cluster.scheduler.need import by_urgency, demands, hold_until_s
from cluster.scheduler.terms import Performance

REPLAN_AT_LEAST_S = 0.05  # however much happens


def replan(core: Core) -> None:
    """Make a plan for what is known now and act on it. Linear in jobs and kinds of hardware."""
    core.stale = False
    core.planned_s, core.plan_at_s = core.now_s, math.inf
    open_jobs = [job for job in core.jobs.values() if not job.stopping]
    models = {job.terms.model for job in open_jobs}
    offers = {model: core.offers(model) for model in models}
    margins_s = {
        model: core.policy.lease_s + max((o.profile.standing.load_s for o in own), default=0.0)
        for model, own in offers.items()
    }
    needs = demands(open_jobs, core.now_s, margins_s, core.policy, core.forecast)
    before = core.plan
    core.plan = make_plan(needs, offers, core.policy, core.cap_mw)
    if core.plan != before:
        core.plan_number += 1
        for key, rivals in core.plan.rivals.items():
            core.note("plan", f"{key[0]} for {key[1]}", rivals=rivals)
    fair = bool(core.plan.shortfall)
    core.order = defaultdict(dict)
    for job in by_urgency(open_jobs, core.served_j, fair=fair):
        if job.has_work:
            core.order[job.terms.model][job.terms.job_id] = job
    _wake_and_switch(core)
    feed_all(core)
    _probe(core, needs)
    _tell(core, needs, margins_s)
    if open_jobs:
        core.plan_by(core.now_s + core.policy.replan_s)


def _wake_and_switch(core: Core) -> None:
    """Wake replicas where the plan wants more than are up; park idle ones with another model."""
    wanted: dict[tuple[str, str], Performance] = {}
    for (model, _), grants in core.plan.grants.items():
        for hardware, grant in grants.items():
            wanted[hardware, model] = grant.performance
    for (hardware, model), performance in wanted.items():
        group = core.fleet.groups[hardware]
        lacking = core.plan.nodes(hardware, model) - group.up_with(model)
        for name in list(group.parked)[: max(0, lacking)]:
            if not wake(core, core.fleet.replicas[name], model, performance):
                _make_room(core)
                return
            lacking -= 1
        for other in list(group.up):
            surplus = group.up_with(other) - core.plan.nodes(hardware, other)
            for name in core.fleet.with_leases(hardware, other, 0)[: max(0, min(surplus, lacking))]:
                park(core, core.fleet.replicas[name], f"makes room for {model}")
                lacking -= 1


def wake(core: Core, replica: Replica, model: str, performance: Performance) -> bool:
    """Have the model loaded there; False if the power cap has no room for it."""
    draw_mw = power_mw(performance)
    if core.cap_mw is not None and core.fleet.power_mw + draw_mw > core.cap_mw:
        return False
    core.learn_gap(replica)
    core.fleet.lift(replica)
    replica.state, replica.model, replica.point = "waking", model, performance.point
    replica.power_mw, replica.since_s = draw_mw, core.now_s
    replica.why = "the plan wants it"
    core.fleet.place(replica)
    core.note("wake", replica.why, replica)
    core.out.append(WakeReplica(replica.replica_id, model, performance.point))
    return True


def park(core: Core, replica: Replica, why: str) -> None:
    """Have an idle replica let go of its model. It counts as drawing power until it has."""
    core.fleet.lift(replica)
    replica.state, replica.why = "parking", why
    core.fleet.place(replica)
    core.note("park", why, replica)
    core.out.append(ParkReplica(replica.replica_id))


def park_if_idle(core: Core, replica: Replica) -> None:
    """Its patience is over: park it, unless there is work for it after all."""
    if not replica.idle:
        return
    due_s = replica.since_s + core.patience_s(replica)
    if core.now_s < due_s - 1e-9:  # it was idle before, and is again
        core.remind(due_s, "idle", replica.replica_id)
        return
    if feed(core, replica):
        return
    waiting = any(job.has_work for job in core.jobs.values() if job.terms.model == replica.model)
    park(core, replica, "cheaper hardware suffices" if waiting else "no work for its model")


def _make_room(core: Core) -> None:
    """The cap is reached: idle replicas that the plan does not count on give up their power."""
    for hardware, group in core.fleet.groups.items():
        for model in list(group.up):
            surplus = group.up_with(model) - core.plan.nodes(hardware, model)
            for name in core.fleet.with_leases(hardware, model, 0)[: max(0, surplus)]:
                park(core, core.fleet.replicas[name], "its power is needed elsewhere")


def _probe(core: Core, needs: list[Demand]) -> None:
    """Find out what hardware of which nothing was measured takes, if it may be the cheapest.

    Only with work that can wait, one replica at a time, and for at most a small share of all
    energy spent.
    """
    for need in needs:
        grants = core.plan.grants.get(need.key)
        if not grants or not need.patient or need.key in core.plan.shortfall:
            continue
        best = min(grant.cost for grant in grants.values())
        for offer in core.offers(need.model):
            hardware, standing = offer.profile.hardware, offer.profile.standing
            for point in offer.profile.curve:
                hopeful_j = point.energy_per_image_j / 2 if point.low_j is None else point.low_j
                if point.samples or (hardware in grants and len(offer.profile.curve) == 1):
                    continue
                if need.objective != "energy" or hopeful_j >= best:
                    continue
                takes_j = point.power_w * core.policy.probe_s + (
                    0.0 if offer.up else standing.load_j
                )
                room_j = core.policy.probe_share * core.spent_j - core.probed_j
                if takes_j <= room_j and _probe_on(core, hardware, need.model, point):
                    core.probed_j += takes_j
                    return


def _probe_on(core: Core, hardware: str, model: str, point: Performance) -> bool:
    """Probe an idle replica, or wake one to be probed when it is up."""
    for name in core.fleet.with_leases(hardware, model, 0):
        return probe_point(core, core.fleet.replicas[name], point.point, core.policy.probe_s)
    group = core.fleet.groups[hardware]
    if group.up_with(model) or not group.parked:
        return False
    return wake(core, core.fleet.replicas[next(iter(group.parked))], model, point)


def _tell(core: Core, needs: list[Demand], margins_s: dict[str, float]) -> None:
    """Tell users why their jobs stand still, and when to look again."""
    held: dict[tuple[str, str], str] = {}
    for need in needs:
        rate = core.plan.hold_rate.get(need.key)
        if rate is not None:
            until_s = hold_until_s(
                core.jobs.values(), need.key, rate, margins_s[need.model], core.policy
            )
            left_s = until_s - core.now_s
            held[need.key] = "held, so that one start-up serves more images"
            core.note("hold", f"for up to {left_s:.0f} s more, while deadlines allow")
            core.plan_by(max(until_s, core.now_s + REPLAN_AT_LEAST_S))
    for job in core.jobs.values():
        _say(core, job, held.get((job.terms.model, job.terms.objective), ""))


def _say(core: Core, job: Job, held: str) -> None:
    reason = held
    if core.plan.grants.get((job.terms.model, job.terms.objective)):
        job.alone_s = None
    if not held and not job.leases and not job.stopping:
        grants = core.plan.grants.get((job.terms.model, job.terms.objective))
        if not core.can_run(job.terms.model):
            reason = f"no live replica can run {job.terms.model}"
        elif not grants:
            reason = "higher-ranked jobs or the power cap leave no replica for it"
    if reason != job.told:
        job.told = reason
        core.out.append(TellUser(job.terms.job_id, reason))
