"""Handing out work: which shards an awake replica gets next; second attempts. Pure."""

from __future__ import annotations

from cluster.scheduler.backlog import Job, Lease
from cluster.scheduler.commands import RunLease
from cluster.scheduler.core import Core
from cluster.scheduler.explain import Kind
from cluster.scheduler.fleet import Replica
from cluster.scheduler.merit import Grant, power_mw
from cluster.scheduler.ranges import Ranges
from cluster.scheduler.terms import OperatingPoint, Performance


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
        replica.state == "awake"
        and not replica.draining
        and not over
        and len(replica.leases) < core.policy.leases
    )


def _next_lease(core: Core, replica: Replica) -> Lease | None:
    order = core.order.get(replica.model, {})
    spent: list[str] = []
    lease = None
    for job_id, job in order.items():
        if job.stopping or not job.has_work:
            spent.append(job_id)
            continue
        grant = core.grant(replica.hardware, replica.model, job.terms.objective)
        if grant is None or not _within_cap(core, replica, grant.performance):
            continue
        shards = _size(core, job, replica, grant)
        if shards:
            first, stop = job.take(shards)
            lease = lease_out(core, job, replica, first, stop, grant.performance)
            break
    for job_id in spent:
        del order[job_id]
    return lease


def _within_cap(core: Core, replica: Replica, performance: Performance) -> bool:
    more_mw = power_mw(performance) - replica.power_mw
    return core.cap_mw is None or more_mw <= 0 or core.fleet.power_mw + more_mw <= core.cap_mw


def _size(core: Core, job: Job, replica: Replica, grant: Grant) -> int:
    """Shards for the replica's next lease; 0 if others had better run them.

    Seconds of work, not shards, are what leases have in common; near the end they get shorter. A
    replica so slow that the rest would wait for it is left out.
    """
    policy, terms = core.policy, job.terms
    shard_s = terms.shard_images / grant.performance.images_per_s
    grants = core.plan.grants[terms.model, terms.objective].values()
    able = [g for g in grants if _affordable(core, job, g.performance)]
    if grant not in able:
        return 0
    together = sum(g.nodes * g.performance.images_per_s for g in able)
    waiting_s = job.waiting_images / together
    fastest_s = min(terms.shard_images / g.performance.images_per_s for g in able)
    if shard_s > fastest_s:
        ends_s = _queue_s(core, replica) + shard_s
        tail = ends_s > waiting_s + 2 * policy.lease_s + fastest_s
        late = terms.deadline_s is not None and core.now_s + ends_s > terms.deadline_s
        if tail or late:
            return 0
    wanted = int(min(policy.lease_s, max(waiting_s / 2, fastest_s)) / shard_s)
    if job.suspects:
        wanted = 1
    return min(max(1, wanted), _affordable(core, job, grant.performance))


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
        stop - first,
        probe=probe,
        speculative=twin_of is not None,
        twin=twin_of is not None,
    )
    if not replica.leases:
        core.learn_gap(replica)
    core.fleet.lift(replica)
    replica.leases.append(lease)
    _set_point(replica, performance)
    core.fleet.place(replica)
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


def _set_point(replica: Replica, performance: Performance) -> None:
    """Run it at that point; never below what it may draw for leases it has."""
    draw_mw = power_mw(performance)
    replica.power_mw = max(draw_mw, replica.power_mw) if len(replica.leases) > 1 else draw_mw
    replica.point = performance.point


def second_attempt(core: Core, lease: Lease) -> None:
    """Run a late lease's shards elsewhere too, if that saves the deadline.

    It is done at the last moment at which another replica would be in time: until then the late
    one may still come. The one that loses is charged as wasted.
    """
    job = core.jobs.get(lease.job_id)
    if job is None or lease.twin or lease.lease_id not in job.leases or not lease.open:
        return
    late = core.fleet.replicas[lease.replica_id]
    if late.leases[0] is not lease:
        return  # it is not its turn yet
    other = _other(core, job, late)
    if other is None:
        core.remind(
            core.now_s + core.policy.lease_s, "late", f"{job.terms.job_id}/{lease.lease_id}"
        )
        return
    replica, grant = other
    shards = lease.open
    needs_s = sum(job.terms.images_in(*run) for run in shards) / grant.performance.images_per_s
    deadline_s = job.terms.deadline_s
    if deadline_s is None:
        latest_s = lease.began_s + core.policy.late_alone_s
    else:
        latest_s = deadline_s - 2 * needs_s - core.policy.lease_s
        if core.now_s + needs_s > deadline_s:
            return  # it would be too late as well
    if core.now_s < latest_s:
        core.remind(latest_s, "late", f"{job.terms.job_id}/{lease.lease_id}")
        return
    first, stop = next(iter(shards))
    if stop - first > _affordable(core, job, grant.performance):
        return
    lease.twin = True
    job.twins += 1
    lease_out(core, job, replica, first, stop, grant.performance, twin_of=lease)


def _other(core: Core, job: Job, late: Replica) -> tuple[Replica, Grant] | None:
    """A replica with room, other than the late one: an idle one if there is one."""
    grants = core.plan.grants.get((job.terms.model, job.terms.objective), {})
    for waiting in range(core.policy.leases):
        for hardware, grant in sorted(grants.items(), key=lambda item: item[1].cost):
            for name in core.fleet.with_leases(hardware, job.terms.model, waiting):
                replica = core.fleet.replicas[name]
                if replica is not late and _takes_work(core, replica):
                    return replica, grant
    return None


def probe_point(core: Core, replica: Replica, point: OperatingPoint, seconds: float) -> bool:
    """Give the replica a little work at a point that little is known of; whether there was any."""
    profile = core.book.profile(replica.hardware, replica.model)
    performance = next((p for p in profile.curve if p.point == point), None) if profile else None
    if performance is None or not _takes_work(core, replica):
        return False
    for job in core.order.get(replica.model, {}).values():
        if job.waiting and not job.stopping and job.terms.energy_budget_j is None:
            shards = int(seconds * performance.images_per_s / job.terms.shard_images)
            first, stop = job.take(max(1, shards))
            lease_out(core, job, replica, first, stop, performance, probe=True)
            return True
    return False
