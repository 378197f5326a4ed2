"""Lost replicas and failed shards: what to retry, and what hardware to stop using. Pure."""

from __future__ import annotations

from cluster.scheduler.backlog import Assignment, Job
from cluster.scheduler.core import Core
from cluster.scheduler.fleet import Replica


def count_loss(core: Core, replica: Replica, reason: str, *, fatal: bool) -> None:
    """Count a replica that died at work or while loading. Call before ``drop_assignments``."""
    core.last_loss[replica.model] = reason
    if replica.assignments and not fatal:
        assignment = replica.assignments[0]
        shard = next(iter(assignment.open), (-1, 0))[0]
        if assignment.revoked or shard in core.jobs[assignment.job_id].attempts:
            return  # a shard that did this before says nothing about the hardware
    _count(core, replica, reason, fatal=fatal)


def drop_assignments(core: Core, replica: Replica, reason: str) -> None:
    """Put a lost replica's shards back. The one it worked on counts as a failed attempt."""
    for number, assignment in enumerate(list(replica.assignments)):
        job = core.jobs[assignment.job_id]
        runs = list(assignment.open)
        job.spent_j += _lost_j(core, assignment) if not number else 0.0
        core.drop_assignment(assignment)
        if not number and runs and not assignment.revoked:
            blame(core, job, runs[0][0], replica, reason)
        for run in runs:
            job.put_back(*run)
        core.touch(job.request.job_id)
    core.stale = True


def shard_failed(core: Core, job: Job, shard: int, replica: Replica, reason: str) -> None:
    """Count a failed attempt of a replica that is still alive. It counts against the hardware only
    if other hardware runs this model without failures: a full disk, say, fails everywhere."""
    if shard not in job.attempts:
        model = replica.model
        rivals = [o.profile.hardware for o in core.offers(model)]
        if any(r != replica.hardware and (r, model) not in core.losses for r in rivals):
            _count(core, replica, reason, fatal=False)
    blame(core, job, shard, replica, reason)


def blame(core: Core, job: Job, shard: int, replica: Replica, reason: str) -> None:
    """Count a failed attempt; after too many the shard is set aside."""
    if job.stopping or shard in job.done:
        return
    if job.blame(shard, reason, replica.hardware, core.policy.max_attempts):
        core.note("set_aside", reason, job_id=job.request.job_id, first=shard, stop=shard + 1)


def _count(core: Core, replica: Replica, reason: str, *, fatal: bool) -> None:
    """Count a failure; blocklist hardware that only fails with this model."""
    key = replica.hardware, replica.model
    # Each of its replicas may fail once, however few are left by now
    most = max(core.policy.max_fruitless, core.fleet.groups[replica.hardware].total())
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
