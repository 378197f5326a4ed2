"""Lost replicas and failed shards: what to retry, and what hardware to stop using. Pure.

A replica dies of a shard that is under way there: on the device, where one is at a time, or behind
it, where earlier ones are encoded and uploaded. The one on the device is suspected, if it is known;
another once it was under way at a second death. A suspect is run alone, and set aside only after it
has failed like that. So a shard that kills replicas costs ``max_attempts`` of them, one more where
it did not do so on the device, and none that did nothing is set aside for it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice

from cluster.scheduler.backlog import Assignment, Job
from cluster.scheduler.core import Core
from cluster.scheduler.fleet import Slot

UNDER_WAY_AT_MOST = 32  # shards of one replica that are encoded or uploaded, as a rule


def count_loss(core: Core, slot: Slot, reason: str, *, fatal: bool) -> None:
    """Count a replica that died at work or while loading. Call before ``drop_assignments``."""
    core.last_loss[slot.model] = reason
    if slot.assignments and not fatal:
        assignment = slot.assignments[0]
        if assignment.revoked or assignment.alone:
            return  # a shard that did this before says nothing about the hardware
    _count(core, slot, reason, fatal=fatal)


def drop_assignments(
    core: Core, slot: Slot, reason: str, at_work: tuple[str, int] | None = None
) -> None:
    """Put a lost replica's shards back; those that may have caused the loss are suspected.

    at_work: (job id, shard) that its device was at; None: unknown.
    """
    begun = _under_way(slot, at_work)
    for assignment, shard in begun:
        job = core.jobs[assignment.job_id]
        if assignment.alone or (assignment.job_id, shard) == at_work or job.witness(shard):
            blame(core, job, shard, slot, reason, sure=assignment.alone)
    for number, assignment in enumerate(list(slot.assignments)):
        job = core.jobs[assignment.job_id]
        runs = list(assignment.open)
        job.spent_j += _lost_j(core, assignment) if not number else 0.0
        core.drop_assignment(assignment)
        for run in runs:
            job.put_back(*run)
        core.touch(job.request.job_id)
    core.stale = True


def _under_way(slot: Slot, at_work: tuple[str, int] | None) -> list[tuple[Assignment, int]]:
    """The shards that the replica had begun and nobody knows the outcome of, in the order in which
    they were begun, but for those it was asked to give up. They end with the one on its device; if
    that is unknown, they are as many as there may have been."""
    begun = list(islice(_open(slot), UNDER_WAY_AT_MOST + 1))
    if at_work is not None:
        latest: deque[tuple[Assignment, int]] = deque(maxlen=UNDER_WAY_AT_MOST + 1)
        for assignment, shard in _open(slot):
            latest.append((assignment, shard))
            if (assignment.job_id, shard) == at_work:
                begun = list(latest)
                break
    return [pair for pair in begun if not pair[0].revoked]


def _open(slot: Slot) -> Iterator[tuple[Assignment, int]]:
    for assignment in slot.assignments:
        for run in assignment.open:
            yield from ((assignment, shard) for shard in range(*run))


def shard_failed(core: Core, job: Job, shard: int, slot: Slot, reason: str) -> None:
    """Count a failed attempt of a replica that is still alive. It counts against the hardware only
    if other hardware runs this model without failures: a full disk, say, fails everywhere."""
    if shard not in job.attempts:
        model = slot.model
        rivals = [o.profile.hardware for o in core.offers(job.request.demand)]
        if any(r != slot.hardware and (r, model) not in core.losses for r in rivals):
            _count(core, slot, reason, fatal=False)
    blame(core, job, shard, slot, reason, sure=True)


def blame(core: Core, job: Job, shard: int, slot: Slot, reason: str, *, sure: bool) -> None:
    """Count a failed attempt; after too many the shard is set aside. sure: as of ``Job.blame``."""
    if job.stopping or shard in job.done:
        return
    if job.blame(shard, reason, slot.hardware, core.policy.max_attempts, sure=sure):
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
