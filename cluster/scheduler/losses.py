"""Lost replicas and failed shards: what to retry, and what hardware to stop using. Pure."""

from __future__ import annotations

from cluster.scheduler.backlog import Assignment, Job
from cluster.scheduler.core import Core
from cluster.scheduler.fleet import Slot


def count_loss(core: Core, slot: Slot, reason: str, *, fatal: bool) -> None:
    """Count a replica that died at work or while loading. Call before ``drop_assignments``."""
    core.last_loss[slot.model] = reason
    if slot.assignments and not fatal:
        assignment = slot.assignments[0]
        shard = next(iter(assignment.open), (-1, 0))[0]
        if assignment.revoked or shard in core.jobs[assignment.job_id].attempts:
            return  # a shard that did this before says nothing about the hardware
    _count(core, slot, reason, fatal=fatal)


def drop_assignments(core: Core, slot: Slot, reason: str) -> None:
    """Put a lost replica's shards back. The one it worked on counts as a failed attempt."""
    for number, assignment in enumerate(list(slot.assignments)):
        job = core.jobs[assignment.job_id]
        runs = list(assignment.open)
        job.spent_j += _lost_j(core, assignment) if not number else 0.0
        core.drop_assignment(assignment)
        if not number and runs and not assignment.revoked:
            blame(core, job, runs[0][0], slot, reason)
        for run in runs:
            job.put_back(*run)
        core.touch(job.request.job_id)
    core.stale = True


def shard_failed(core: Core, job: Job, shard: int, slot: Slot, reason: str) -> None:
    """Count a failed attempt of a replica that is still alive. It counts against the hardware only
    if other hardware runs this model without failures: a full disk, say, fails everywhere."""
    if shard not in job.attempts:
        model = slot.model
        rivals = [o.profile.hardware for o in core.offers(job.request.demand)]
        if any(r != slot.hardware and (r, model) not in core.losses for r in rivals):
            _count(core, slot, reason, fatal=False)
    blame(core, job, shard, slot, reason)


def blame(core: Core, job: Job, shard: int, slot: Slot, reason: str) -> None:
    """Count a failed attempt; after too many the shard is set aside."""
    if job.stopping or shard in job.done:
        return
    if job.blame(shard, reason, slot.hardware, core.policy.max_attempts):
        core.note("set_aside", reason, job_id=job.request.job_id, first=shard, stop=shard + 1)


def _count(core: Core, slot: Slot, reason: str, *, fatal: bool) -> None:
    """Count a failure; blocklist hardware that only fails with this model."""
    key = slot.hardware, slot.model
    # Each of its replicas may fail once, however few are left by now
    most = max(core.policy.max_fruitless, core.fleet.groups[slot.hardware].total())
    count, most = core.losses.get(key, (0, most))
    core.losses[key] = count + 1, most
    if fatal or count + 1 > most:
        core.blocklisted[key] = reason
        del core.losses[key]
        core.stale = True
        core.touch(*core.jobs)


def _lost_j(core: Core, assignment: Assignment) -> float:
    """What a lost assignment took beyond its commits, by prediction: nobody reports it."""
    spent_s = core.now_s - assignment.began_s
    share = 1.0 if assignment.predicted_s <= 0 else min(1.0, spent_s / assignment.predicted_s)
    return max(0.0, share - (1 - assignment.open_share)) * assignment.predicted_j
