"""How a run stands, in the words of the store, from what the fleet shows of it. Pure."""

from __future__ import annotations

from datetime import datetime

from cluster.progress import Snapshot
from cluster.states import JobState
from cluster.storage.servers import RunStatus
from jobs.server.decide import Action, Facts
from jobs.service.views import ReasonCode

Reason = tuple[ReasonCode | None, str]
NO_REASON: Reason = (None, "")
USER_REQUEST: Reason = ("user_request", "")
#: What ``cluster.storage.s3_errors`` says of them.
_OF_CREDENTIALS = ("credentials", "access key", "secret key", "session token")
_STOPPING = {Action.PAUSE: JobState.PAUSING, Action.CANCEL: JobState.CANCELLING}


def state_of(facts: Facts) -> JobState:
    """The job's state while a run of it is under way, or is to begin."""
    run = facts.run
    if facts.stopping_s is not None:
        return _STOPPING.get(facts.goal, JobState.PAUSING if run else JobState.QUEUED)
    if run is None or run.is_over:
        return JobState.QUEUED
    return JobState.RUNNING if run.state == JobState.RUNNING else JobState.STARTING


def reason_of(facts: Facts, snapshot: Snapshot | None) -> Reason:
    """Why a job with a run under way is in its state."""
    if facts.stopping_s is not None:
        return ("deadline_passed", "") if facts.goal == Action.EXPIRE else USER_REQUEST
    note = "" if snapshot is None else snapshot.note
    if snapshot is None or snapshot.state == JobState.RUNNING:
        return (None, note)
    return ("waiting_for_hardware", note) if note else ("starting_replicas", "")


def why_failed(snapshot: Snapshot) -> Reason:
    """Of a run that failed: what it waits for, or what is wrong with it."""
    reason = snapshot.reason
    if any(word in reason for word in _OF_CREDENTIALS):
        return "credentials", reason
    if "stayed away" in reason or "the store" in reason:
        return "store_unavailable", reason
    if not any(view.hardware for view in snapshot.replicas):
        return "waiting_for_hardware", reason
    return ("shards_failed" if snapshot.set_aside else "internal"), reason


def may_pass(reason: Reason) -> bool:
    """Whether it goes on by itself once the cause is gone, however often it is tried."""
    return reason[0] in ("credentials", "store_unavailable", "waiting_for_hardware")


def status_of(
    facts: Facts,
    job_id: str,
    server_id: str,
    state: JobState,
    reason: Reason,
    at: datetime,
    *,
    snapshot: Snapshot | None = None,
    started_at: datetime | None = None,
) -> RunStatus:
    """How the run of the newest claim stands."""
    status = RunStatus(
        job_id=job_id,
        epoch=facts.epoch,
        server_id=server_id,
        intent=facts.intent,
        state=state,
        reason_code=reason[0] or "",
        reason=reason[1],
        at=at,
        started_at=started_at,
    )
    if snapshot is None:
        return status
    rate = snapshot.images_per_s or None
    left = snapshot.total_images - snapshot.committed_images
    return status.model_copy(
        update={
            "committed_images": snapshot.committed_images,
            "in_flight_images": snapshot.open_images,
            "images_per_s": rate,
            "eta_s": left / rate if rate and state == JobState.RUNNING else None,
            "energy": snapshot.energy,
            "overhead": snapshot.overhead,
            "retries": snapshot.retries,
            "replicas": sum(view.state == "awake" for view in snapshot.replicas),
            "bottleneck": snapshot.stages.bottleneck if state == JobState.RUNNING else None,
            "set_aside": snapshot.set_aside,
        }
    )
