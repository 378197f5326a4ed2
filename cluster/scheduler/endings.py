"""Whether a job has ended, and in which state. Pure."""

from __future__ import annotations

from cluster.scheduler.backlog import Job
from cluster.scheduler.core import Core
from cluster.scheduler.dispatch import broke
from cluster.states import JobEnd, JobState

BUDGET_SPENT = "its energy budget has no room for another shard"


def ending(core: Core, job: Job) -> tuple[JobEnd, str] | None:
    """The state in which the job ends now, and why; None if it goes on."""
    policy, aside = core.policy, job.set_aside
    if not job.shards_left:
        if not job.done_images:
            return JobState.FAILED, f"no shard could be made; {_last(job)}"
        end: JobEnd = JobState.COMPLETED_WITH_ERRORS if aside else JobState.COMPLETED
        return end, _last(job)
    if job.stopping:
        return None if job.assignments else (job.stopping, f"{job.stopping} on request")
    if len(aside) > max(policy.max_set_aside, policy.set_aside_share * job.request.shards):
        return JobState.FAILED, f"{len(aside)} shards were set aside; {_last(job)}"
    if broke(core, job):
        budget_j = job.request.energy_budget_j
        return JobState.PAUSED, f"{BUDGET_SPENT}: {job.spent_j:.1f} J of {budget_j:.1f} J are spent"
    if not job.assignments and not core.can_run(job.request.model):
        return _without_replicas(core, job)
    return None


def may_be_over(job: Job) -> bool:
    """Whether a new plan or the passing of time may end the job."""
    return job.has_budget or (job.alone_s is not None and not job.assignments)


def _without_replicas(core: Core, job: Job) -> tuple[JobEnd, str] | None:
    """No replica can run the job: it fails at once if hardware is blocklisted, else after
    ``desert_s``."""
    model = job.request.model
    blocklisted = [why for (_, of_model), why in core.blocklisted.items() if of_model == model]
    deserted = job.alone_s is not None and core.now_s >= job.alone_s + core.policy.desert_s
    if not blocklisted and not deserted:
        return None
    why = blocklisted[-1] if blocklisted else core.last_loss.get(model, "none has joined")
    return JobState.FAILED, f"no replica is left; the last loss: {why}"


def _last(job: Job) -> str:
    if not job.set_aside:
        return ""
    last = list(job.set_aside.values())[-1]
    return f"shard {last.shard} failed {last.attempts} times; the last: {last.reason}"
