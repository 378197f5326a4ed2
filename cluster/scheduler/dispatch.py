"""Dispatch: which shards an awake replica gets next; second attempts of late work. Pure."""

from __future__ import annotations

import math

from cluster.scheduler.backlog import Assignment, Job
from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.core import Core
from cluster.scheduler.explain import Kind
from cluster.scheduler.fleet import Slot
from cluster.scheduler.ranges import Ranges
from cluster.scheduler.request import DemandKey, OperatingPoint, Performance
from cluster.scheduler.supply import power_mw
from cluster.states import ReplicaState


def feed(core: Core, slot: Slot) -> bool:
    """Give an awake replica assignments while it has room; True if it got any."""
    fed = False
    while _takes_work(core, slot):
        assignment = _next_assignment(core, slot)
        if assignment is None:
            break
        fed = True
    return fed


def feed_all(core: Core) -> None:
    """Give work to every replica that the plan has work for, first to those without any."""
    for waiting in range(core.policy.assignments):
        for demand, grants in core.plan.grants.items():
            for hardware in grants:
                for slot in core.fleet.hungry(hardware, demand.model, waiting):
                    if not _takes_work(core, slot) or _next_assignment(core, slot) is None:
                        break


def _takes_work(core: Core, slot: Slot) -> bool:
    over = core.cap_mw is not None and core.fleet.power_mw > core.cap_mw
    return (
        slot.state == ReplicaState.AWAKE
        and not slot.draining
        and not over
        and slot.room(core.policy.assignments)
    )


def _next_assignment(core: Core, slot: Slot) -> Assignment | None:
    """Assign the most urgent work that the replica can finish in time; else work of jobs whose
    deadline has passed, which comes last so that it does not delay other work.

    A suspect runs alone: if it is next, the replica gets nothing until it is idle.
    """
    work = _work_for(core, slot, missed=False) or _work_for(core, slot, missed=True)
    if work is None:
        return None
    job, shards, performance = work
    if slot.assignments and job.next_suspect(slot.hardware) is not None:
        return None
    first, stop = job.take(shards, slot.hardware)
    return assignment_out(core, job, slot, first, stop, performance)


def _work_for(core: Core, slot: Slot, *, missed: bool) -> tuple[Job, int, Performance] | None:
    """The first job in order that has work for this replica, how many shards at most, and how they
    will be run; with ``missed``, only of jobs whose deadline has passed."""
    order = core.order.get(slot.model, {})
    spent: list[str] = []
    work = None
    for job_id, job in order.items():
        if job.stopping or not job.has_work:
            spent.append(job_id)
            continue
        performance = _point_now(core, slot, job.request.demand)
        if performance is None or (missed and not job.missed(core.now_s)):
            continue
        shards = _size(core, job, slot, performance, missed=missed)
        if shards:
            work = job, shards, performance
            break
    for job_id in spent:
        del order[job_id]
    return work


def _point_now(core: Core, slot: Slot, demand: DemandKey) -> Performance | None:
    """How the plan runs such work there; slower while others still draw the power for that; None
    if it has none for it."""
    planned = core.planned_point(slot.hardware, demand)
    if planned is None or _within_cap(core, slot, planned):
        return planned
    profile = core.book.profile(slot.hardware, demand.model, demand.encoding)
    fitting = [p for p in profile.curve if _within_cap(core, slot, p)] if profile else []
    return max(fitting, key=lambda p: p.images_per_s, default=None)


def _within_cap(core: Core, slot: Slot, performance: Performance) -> bool:
    more_mw = power_mw(performance) - slot.power_mw
    return core.cap_mw is None or more_mw <= 0 or core.fleet.power_mw + more_mw <= core.cap_mw


def _size(core: Core, job: Job, slot: Slot, performance: Performance, *, missed: bool) -> int:
    """Number of shards of the replica's next assignment; 0 if other replicas should run them.

    Assignments are equally long in seconds, and get shorter near the end of the job. A replica gets
    none if it is so slow that the rest of the job would wait for it, or if it would finish after
    the deadline (unless ``missed``).
    """
    policy, request = core.policy, job.request
    room = _affordable(core, job, performance)
    if not room:
        return 0
    shard_s = request.shard_images / performance.images_per_s
    grants = core.plan.grants.get(request.demand, {}).values()
    able = [g for g in grants if _affordable(core, job, g.performance)]
    together = sum(g.nodes * g.performance.images_per_s for g in able) or performance.images_per_s
    fastest_s = min([shard_s, *(request.shard_images / g.performance.images_per_s for g in able)])
    waiting_s = job.waiting_images / together
    if shard_s > fastest_s:
        ends_s = _queue_s(core, slot) + shard_s
        tail = ends_s > waiting_s + 2 * policy.assignment_s + fastest_s
        left_s = math.inf if request.deadline_s is None else request.deadline_s - core.now_s
        late = ends_s > left_s and not missed
        if tail or late:
            return 0
    wanted = int(min(policy.assignment_s, max(waiting_s / 2, fastest_s)) / shard_s)
    return min(max(1, wanted), room)


def _affordable(core: Core, job: Job, performance: Performance) -> int:
    """Number of shards that the job's energy budget allows in addition to running ones."""
    budget_j = job.request.energy_budget_j
    if budget_j is None:
        return job.request.shards
    margin = 1 + core.policy.budget_margin
    images = min(job.request.shard_images, job.waiting_images) or job.request.shard_images
    left_j = budget_j - job.spent_j - job.reserved_j * margin
    return max(0, int(left_j / (performance.energy_per_image_j * images * margin)))


def broke(core: Core, job: Job) -> bool:
    """Whether the job's energy budget is too small for a shard on any hardware of the plan."""
    if job.request.energy_budget_j is None or job.assignments or not job.has_work:
        return False
    grants = core.plan.grants.get(job.request.demand, {}).values()
    return bool(grants) and not any(_affordable(core, job, g.performance) for g in grants)


def _queue_s(core: Core, slot: Slot) -> float:
    """Predicted seconds until the replica has finished its assignments."""
    left_s = 0.0
    for number, assignment in enumerate(slot.assignments):
        open_s = assignment.predicted_s * assignment.open_share
        if not number:
            open_s = max(0.0, min(open_s, assignment.began_s + assignment.predicted_s - core.now_s))
        left_s += open_s
    return left_s


def assignment_out(
    core: Core,
    job: Job,
    slot: Slot,
    first: int,
    stop: int,
    performance: Performance,
    *,
    probe: bool = False,
    twin_of: Assignment | None = None,
) -> Assignment:
    """Assign these shards, which the caller has taken from ``Job.take`` or a late assignment."""
    images = job.request.images_in(first, stop)
    assignment = Assignment(
        core.next_assignment_id(),
        slot.replica_id,
        job.request.job_id,
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
        alone=job.alone(first, stop),
    )
    if not slot.assignments:
        core.learn_gap(slot)
    with core.fleet.changing(slot):
        slot.assignments.append(assignment)
        slot.power_mw = max(held.power_mw for held in slot.assignments)
        slot.point = performance.point
    job.assignments[assignment.assignment_id] = assignment
    job.reserved_j += assignment.predicted_j
    owner = job.request.owner
    core.served_j[owner] = core.served_j.get(owner, 0.0) + assignment.predicted_j
    if len(slot.assignments) == 1:
        core.begin(assignment)
    kind: Kind = "probe" if probe else "speculate" if twin_of is not None else "lease"
    core.note(
        kind, _why(probe, twin_of), slot, job_id=job.request.job_id, first=first, stop=stop,
        predicted_s=assignment.predicted_s, predicted_j=assignment.predicted_j,
    )  # fmt: skip
    core.out.append(
        RunAssignment(
            assignment.assignment_id,
            slot.replica_id,
            job.request.job_id,
            first,
            stop,
            performance.point,
            probe,
            assignment.speculative,
        )
    )
    return assignment


def _why(probe: bool, twin_of: Assignment | None) -> str:
    if probe:
        return "to learn what this hardware takes"
    if twin_of is not None:
        return f"{twin_of.replica_id} is late with it"
    return "cheapest hardware in the plan with room"


def second_attempt(core: Core, assignment: Assignment) -> None:
    """Run a late assignment, and those queued behind it, on another replica as well.

    This happens at the last moment at which the other replica meets the deadline, since the late
    one may still finish. Without a deadline that can be met, it happens after ``late_alone_s``. Of
    two attempts the one that commits second is charged as wasted.
    """
    job = core.jobs.get(assignment.job_id)
    if job is None or assignment.assignment_id not in job.assignments:
        return
    late = core.fleet.slots[assignment.replica_id]
    if late.assignments[0] is not assignment:
        return  # it is not its turn yet
    again_s = core.now_s + core.policy.assignment_s
    other = _other(core, job, late)
    if other is not None:
        needs_s = sum(_images(core, held) for held in late.assignments) / other[1].images_per_s
        latest_s = assignment.began_s + core.policy.late_alone_s
        if job.request.deadline_s is not None and core.now_s + needs_s <= job.request.deadline_s:
            latest_s = job.request.deadline_s - 2 * needs_s - core.policy.assignment_s
        if core.now_s < latest_s:
            again_s = latest_s
        else:
            for held in list(late.assignments):
                _twin(core, held, late)
    core.remind(again_s, "late", f"{job.request.job_id}/{assignment.assignment_id}")


def _images(core: Core, assignment: Assignment) -> int:
    return sum(core.jobs[assignment.job_id].request.images_in(*run) for run in assignment.open)


def _twin(core: Core, assignment: Assignment, late: Slot) -> None:
    """Give its first open shards to another replica as well, if one has room and the budget
    allows it."""
    job = core.jobs[assignment.job_id]
    first, stop = next(iter(assignment.open))
    other = _other(core, job, late, idle=job.alone(first, stop))
    if other is None or job.stopping or assignment.revoked or job.has_twin(assignment):
        return
    slot, performance = other
    if stop - first <= _affordable(core, job, performance):
        assignment.twin = True
        job.twins += 1
        assignment_out(core, job, slot, first, stop, performance, twin_of=assignment)


def _other(
    core: Core, job: Job, late: Slot, *, idle: bool = False
) -> tuple[Slot, Performance] | None:
    """A replica with room other than the late one, and its performance; idle ones first. idle: no
    others."""
    grants = core.plan.grants.get(job.request.demand, {})
    for waiting in range(1 if idle else core.policy.assignments):
        for hardware in sorted(grants, key=lambda name: grants[name].cost):
            for slot in core.fleet.with_assignments(hardware, job.request.model, waiting, most=2):
                performance = _point_now(core, slot, job.request.demand)
                if slot is not late and _takes_work(core, slot) and performance is not None:
                    return slot, performance
    return None


def work_to_probe(core: Core, model: str, encoding: str | None = None) -> Job | None:
    """A job whose shards may be used for a probe; None if there is none. encoding: None is any."""
    for job in core.order.get(model, {}).values():
        can_wait = job.request.objective == "energy" and not job.has_budget
        fits = encoding is None or job.request.encoding == encoding
        if can_wait and fits and job.waiting and not job.stopping:
            return job
    return None


def probe_images(core: Core, job: Job, performance: Performance) -> int:
    """Number of images of one probe: ``probe_s`` of work in whole shards, at least one."""
    shards = int(core.policy.probe_s * performance.images_per_s / job.request.shard_images)
    return max(1, shards) * job.request.shard_images


def room_to_probe_j(core: Core) -> float:
    """Energy that probes may still take, J."""
    return core.policy.probe_share * core.spent_j - core.probed_j


def probe_point(core: Core, slot: Slot, point: OperatingPoint, encoding: str | None = None) -> bool:
    """Give the replica a probe: work at a point to be measured, in this encoding or any. True if it
    got one."""
    job = work_to_probe(core, slot.model, encoding)
    if job is None:
        return False
    profile = core.book.profile(slot.hardware, slot.model, job.request.encoding)
    performance = next((p for p in profile.curve if p.point == point), None) if profile else None
    if performance is None:
        return False
    if not slot.idle or not _takes_work(core, slot) or not _within_cap(core, slot, performance):
        return False
    images = probe_images(core, job, performance)
    if images * performance.energy_per_image_j > room_to_probe_j(core):
        return False
    first, stop = job.take(images // job.request.shard_images, slot.hardware)
    assignment = assignment_out(core, job, slot, first, stop, performance, probe=True)
    core.probed_j += assignment.predicted_j
    core.probing = slot.replica_id
    return True
