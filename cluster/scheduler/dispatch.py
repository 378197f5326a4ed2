"""Handing out work: which shards an awake replica gets next; second attempts. Pure."""

from __future__ import annotations

import math

from cluster.scheduler.backlog import Job, Lease
from cluster.scheduler.commands import RunLease
from cluster.scheduler.core import Core
from cluster.scheduler.explain import Kind
from cluster.scheduler.fleet import Replica
from cluster.scheduler.ranges import Ranges
from cluster.scheduler.steps import power_mw
from cluster.scheduler.terms import Objective, OperatingPoint, Performance
from cluster.states import ReplicaState


def feed(core: Core, replica: Replica) -> bool:
    """Give an awake replica leases until it has enough; whether it got any."""
    fed = False
    while _takes_work(core, replica):
        lease = _next_lease(core, replica)
        if lease is None:
            break
        fed = True
    return fed


def feed_all(core: Core) -> None:
    """Give work to every replica that the plan has work for: first those without any."""
    for waiting in range(core.policy.leases):
        for (model, _), grants in core.plan.grants.items():
            for hardware in grants:
                for replica in core.fleet.hungry(hardware, model, waiting):
                    if not _takes_work(core, replica) or _next_lease(core, replica) is None:
                        break


def _takes_work(core: Core, replica: Replica) -> bool:
    over = core.cap_mw is not None and core.fleet.power_mw > core.cap_mw
    return (
        replica.state == ReplicaState.AWAKE
        and not replica.draining
        and not over
        and len(replica.leases) < core.policy.leases
    )


def _next_lease(core: Core, replica: Replica) -> Lease | None:
    """Lease it the most pressing work that it is good for; else what is late already, which must
    not keep slow hardware from work that it can do in time."""
    return _lease_of(core, replica, missed=False) or _lease_of(core, replica, missed=True)


def _lease_of(core: Core, replica: Replica, *, missed: bool) -> Lease | None:
    """A lease of any job in order; or, with ``missed``, of those whose deadline is over."""
    order = core.order.get(replica.model, {})
    spent: list[str] = []
    lease = None
    for job_id, job in order.items():
        if job.stopping or not job.has_work:
            spent.append(job_id)
            continue
        performance = _point_now(core, replica, job.terms.objective)
        if performance is None or (missed and not job.missed(core.now_s)):
            continue
        shards = _size(core, job, replica, performance, missed=missed)
        if shards:
            first, stop = job.take(shards, replica.hardware)
            lease = lease_out(core, job, replica, first, stop, performance)
            break
    for job_id in spent:
        del order[job_id]
    return lease


def _point_now(core: Core, replica: Replica, objective: Objective) -> Performance | None:
    """How the plan runs such work there; slower while others still draw the power for that; None
    if it has none for it."""
    planned = core.planned_point(replica.hardware, replica.model, objective)
    if planned is None or _within_cap(core, replica, planned):
        return planned
    profile = core.book.profile(replica.hardware, replica.model)
    fitting = [p for p in profile.curve if _within_cap(core, replica, p)] if profile else []
    return max(fitting, key=lambda p: p.images_per_s, default=None)


def _within_cap(core: Core, replica: Replica, performance: Performance) -> bool:
    more_mw = power_mw(performance) - replica.power_mw
    return core.cap_mw is None or more_mw <= 0 or core.fleet.power_mw + more_mw <= core.cap_mw


def _size(core: Core, job: Job, replica: Replica, performance: Performance, *, missed: bool) -> int:
    """Shards for the replica's next lease; 0 if others had better run them.

    Seconds of work, not shards, are what leases have in common; near the end they get shorter. A
    replica so slow that the rest would wait for it is left out; so is one that would end after a
    deadline, unless it is missed anyway.
    """
    policy, terms = core.policy, job.terms
    room = _affordable(core, job, performance)
    if not room:
        return 0
    shard_s = terms.shard_images / performance.images_per_s
    grants = core.plan.grants.get((terms.model, terms.objective), {}).values()
    able = [g for g in grants if _affordable(core, job, g.performance)]
    together = sum(g.nodes * g.performance.images_per_s for g in able) or performance.images_per_s
    fastest_s = min([shard_s, *(terms.shard_images / g.performance.images_per_s for g in able)])
    waiting_s = job.waiting_images / together
    if shard_s > fastest_s:
        ends_s = _queue_s(core, replica) + shard_s
        tail = ends_s > waiting_s + 2 * policy.lease_s + fastest_s
        left_s = math.inf if terms.deadline_s is None else terms.deadline_s - core.now_s
        late = ends_s > left_s and not missed
        if tail or late:
            return 0
    wanted = int(min(policy.lease_s, max(waiting_s / 2, fastest_s)) / shard_s)
    return min(max(1, wanted), room)


def _affordable(core: Core, job: Job, performance: Performance) -> int:
    """Shards that the job's energy budget has room for beside what is running."""
    budget_j = job.terms.energy_budget_j
    if budget_j is None:
        return job.terms.shards
    margin = 1 + core.policy.budget_margin
    images = min(job.terms.shard_images, job.waiting_images) or job.terms.shard_images
    left_j = budget_j - job.spent_j - job.reserved_j * margin
    return max(0, int(left_j / (performance.energy_per_image_j * images * margin)))


def broke(core: Core, job: Job) -> bool:
    """Whether the job's energy budget keeps it from running on whatever the plan gives it."""
    if job.terms.energy_budget_j is None or job.leases or not job.has_work:
        return False
    grants = core.plan.grants.get((job.terms.model, job.terms.objective), {}).values()
    return bool(grants) and not any(_affordable(core, job, g.performance) for g in grants)


def _queue_s(core: Core, replica: Replica) -> float:
    """Seconds until the replica is through with the leases it has."""
    left_s = 0.0
    for number, lease in enumerate(replica.leases):
        open_s = lease.predicted_s * lease.open_share
        if not number:
            open_s = max(0.0, min(open_s, lease.began_s + lease.predicted_s - core.now_s))
        left_s += open_s
    return left_s


def lease_out(
    core: Core,
    job: Job,
    replica: Replica,
    first: int,
    stop: int,
    performance: Performance,
    *,
    probe: bool = False,
    twin_of: Lease | None = None,
) -> Lease:
    """Lease these shards, which the caller has taken from those waiting, or from a late lease."""
    images = job.terms.images_in(first, stop)
    lease = Lease(
        core.next_lease_id(),
        replica.replica_id,
        job.terms.job_id,
        Ranges([(first, stop)]),
        performance.point,
        core.now_s,
        images / performance.images_per_s,
        images * performance.energy_per_image_j,
        power_mw(performance),
        stop - first,
        probe=probe,
        speculative=twin_of is not None,
        twin=twin_of is not None,
    )
    if not replica.leases:
        core.learn_gap(replica)
    with core.fleet.changing(replica):
        replica.leases.append(lease)
        replica.power_mw = max(held.power_mw for held in replica.leases)
        replica.point = performance.point
    job.leases[lease.lease_id] = lease
    job.reserved_j += lease.predicted_j
    owner = job.terms.owner
    core.served_j[owner] = core.served_j.get(owner, 0.0) + lease.predicted_j
    if len(replica.leases) == 1:
        core.begin(lease)
    kind: Kind = "probe" if probe else "speculate" if twin_of is not None else "lease"
    core.note(kind, _why(probe, twin_of), replica, job_id=job.terms.job_id, first=first,
              stop=stop, predicted_s=lease.predicted_s, predicted_j=lease.predicted_j)  # fmt: skip
    core.out.append(
        RunLease(
            lease.lease_id,
            replica.replica_id,
            job.terms.job_id,
            first,
            stop,
            performance.point,
            probe,
            lease.speculative,
        )
    )
    return lease


def _why(probe: bool, twin_of: Lease | None) -> str:
    if probe:
        return "to learn what this hardware takes"
    if twin_of is not None:
        return f"{twin_of.replica_id} is late with it"
    return "cheapest hardware in the plan with room"


def second_attempt(core: Core, lease: Lease) -> None:
    """Run a late lease elsewhere too, and those that wait behind it, if that saves the deadline.

    It is done at the last moment at which another replica would be in time: until then the late
    one may still come. Without a deadline that can be met, it is done after so long that the
    replica is hardly alive. The one that loses is charged as wasted.
    """
    job = core.jobs.get(lease.job_id)
    if job is None or lease.lease_id not in job.leases:
        return
    late = core.fleet.replicas[lease.replica_id]
    if late.leases[0] is not lease:
        return  # it is not its turn yet
    again_s = core.now_s + core.policy.lease_s
    other = _other(core, job, late)
    if other is not None:
        needs_s = sum(_images(core, held) for held in late.leases) / other[1].images_per_s
        latest_s = lease.began_s + core.policy.late_alone_s
        if job.terms.deadline_s is not None and core.now_s + needs_s <= job.terms.deadline_s:
            latest_s = job.terms.deadline_s - 2 * needs_s - core.policy.lease_s
        if core.now_s < latest_s:
            again_s = latest_s
        else:
            for held in list(late.leases):
                _twin(core, held, late)
    core.remind(again_s, "late", f"{job.terms.job_id}/{lease.lease_id}")


def _images(core: Core, lease: Lease) -> int:
    return sum(core.jobs[lease.job_id].terms.images_in(*run) for run in lease.open)


def _twin(core: Core, lease: Lease, late: Replica) -> None:
    """Lease its first open shards to another replica as well, if there is one and it may be."""
    job = core.jobs[lease.job_id]
    other = _other(core, job, late)
    if other is None or job.stopping or lease.revoked or job.has_twin(lease):
        return
    replica, performance = other
    first, stop = next(iter(lease.open))
    if stop - first <= _affordable(core, job, performance):
        lease.twin = True
        job.twins += 1
        lease_out(core, job, replica, first, stop, performance, twin_of=lease)


def _other(core: Core, job: Job, late: Replica) -> tuple[Replica, Performance] | None:
    """A replica with room, other than the late one: an idle one if there is one."""
    grants = core.plan.grants.get((job.terms.model, job.terms.objective), {})
    for waiting in range(core.policy.leases):
        for hardware in sorted(grants, key=lambda name: grants[name].cost):
            for replica in core.fleet.with_leases(hardware, job.terms.model, waiting, most=2):
                performance = _point_now(core, replica, job.terms.objective)
                if replica is not late and _takes_work(core, replica) and performance is not None:
                    return replica, performance
    return None


def work_to_probe(core: Core, model: str) -> Job | None:
    """A job that may be used to find out what hardware does."""
    for job in core.order.get(model, {}).values():
        can_wait = job.terms.objective == "energy" and not job.has_budget
        if can_wait and job.waiting and not job.stopping:
            return job
    return None


def probe_images(core: Core, job: Job, performance: Performance) -> int:
    """Images of one probe: a few seconds' worth, in whole shards."""
    shards = int(core.policy.probe_s * performance.images_per_s / job.terms.shard_images)
    return max(1, shards) * job.terms.shard_images


def room_to_probe_j(core: Core) -> float:
    """Energy that may be spent on probes now."""
    return core.policy.probe_share * core.spent_j - core.probed_j


def probe_point(core: Core, replica: Replica, point: OperatingPoint) -> bool:
    """Give the replica a little work at a point that little is known of; whether it got any."""
    profile = core.book.profile(replica.hardware, replica.model)
    performance = next((p for p in profile.curve if p.point == point), None) if profile else None
    job = work_to_probe(core, replica.model)
    if performance is None or job is None:
        return False
    if not _takes_work(core, replica) or not _within_cap(core, replica, performance):
        return False
    images = probe_images(core, job, performance)
    if images * performance.energy_per_image_j > room_to_probe_j(core):
        return False
    first, stop = job.take(images // job.terms.shard_images, replica.hardware)
    lease = lease_out(core, job, replica, first, stop, performance, probe=True)
    core.probed_j += lease.predicted_j
    core.probing = replica.replica_id
    return True
