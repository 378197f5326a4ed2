"""The state of a job that the service has, and why it is in it, from what the store says. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

from cluster.states import JobState
from cluster.storage.intents import Intent
from cluster.storage.servers import RunStatus
from jobs.service.views import Reason, ReasonCode

#: What a run that is held by a live server may be seen in.
_AT_WORK = (JobState.STARTING, JobState.RUNNING)
#: Reasons to pause that end without the user: another server may take such a job over.
_PASSING: tuple[ReasonCode, ...] = ("credentials", "store_unavailable", "ray_lost")


@dataclass(frozen=True)
class Facts:
    """What is known of a job at one moment.

    intent: the newest; None of a job that a command runs, which no server touches.
    ended: by its marker. run: how its newest run of the service stood.
    held: the server of that run is alive, as far as is known. servers: how many are.
    set_aside: shards that an ended job lacks.
    """

    store_uri: str
    intent: Intent | None
    ended: JobState | None
    run: RunStatus | None
    held: bool
    servers: int
    set_aside: int = 0


@dataclass(frozen=True)
class Observed:
    """live: the run's server reports what it does, so that its counts are those of the job."""

    state: JobState
    reason: Reason | None
    live: bool = False


def observe(facts: Facts) -> Observed:
    """The job's state and the reason for it. Read the intent before the run, the run before the
    beats, and the marker last: then no end is missed that a run reports."""
    intent, run = facts.intent, facts.run
    if facts.ended is not None:
        return Observed(facts.ended, _of_end(facts))
    if intent is None:
        return Observed(JobState.INCOMPLETE, None)
    live = run is not None and facts.held and not run.state.is_terminal
    if intent.wanted == "cancel":
        return Observed(JobState.CANCELLING, _of_cancelling(facts, intent), live)
    if intent.wanted == "pause":
        at_work = live and run is not None and run.state in (*_AT_WORK, JobState.PAUSING)
        state = JobState.PAUSING if at_work else JobState.PAUSED
        return Observed(state, _by_user(intent, "paused"), live)
    return _wanted_to_run(facts, intent, live=live)


def _wanted_to_run(facts: Facts, intent: Intent, *, live: bool) -> Observed:
    run = facts.run
    if run is None:
        return Observed(JobState.QUEUED, _of_waiting(facts))
    acted = run.intent >= intent.number
    if run.state == JobState.PAUSED and acted:
        reason = _of_run(run) or Reason(code="internal", message="its run paused without a reason")
        if live or reason.code not in _PASSING:
            return Observed(JobState.PAUSED, reason, live)
    if live and run.state in (*_AT_WORK, JobState.PAUSING):
        return Observed(run.state, _of_work(run), live)
    return Observed(JobState.QUEUED, _of_waiting(facts, own=acted), live)


def _of_waiting(facts: Facts, *, own: bool = False) -> Reason:
    """Why the job is queued. own: its run is of the newest intent."""
    run = facts.run
    if not facts.servers:
        return Reason(code="waiting_for_server", message=_no_server(facts))
    if run is not None and own and facts.held:
        told = _of_run(run)
        if told is not None:
            return told
    if run is not None and own and not facts.held:
        return Reason(
            code="server_lost",
            message=f"its server {run.server_id} gives no sign of life; another takes it over",
        )
    return Reason(code="waiting_for_turn", message="a server takes it on when its turn comes")


def _of_work(run: RunStatus) -> Reason | None:
    reason = _of_run(run)
    if reason is None and run.state == JobState.STARTING:
        return Reason(code="starting_replicas", message="replicas start and load the model")
    return reason


def _of_cancelling(facts: Facts, intent: Intent) -> Reason:
    if not facts.servers:
        return Reason(
            code="waiting_for_server",
            message=f"{_by_user(intent, 'cancelled').message}; {_no_server(facts)}",
        )
    return _by_user(intent, "cancelled")


def _of_end(facts: Facts) -> Reason | None:
    intent, run, state = facts.intent, facts.run, facts.ended
    reported = None if run is None or run.state != state else _of_run(run)
    if state == JobState.CANCELLED and intent is not None:
        return _by_user(intent, "cancelled")
    if state == JobState.COMPLETED_WITH_ERRORS:
        shards = "1 shard" if facts.set_aside == 1 else f"{facts.set_aside:,} shards"
        return Reason(
            code="shards_failed",
            message=f"{shards} failed again and again and were set aside; see `un0 logs`",
        )
    if state == JobState.EXPIRED:
        return reported or Reason(code="deadline_passed", message="its deadline passed")
    if state == JobState.FAILED:
        return reported or Reason(code="internal", message="`un0 logs` says what happened")
    return None


def _of_run(run: RunStatus) -> Reason | None:
    """What its server says; a code of a newer version is shown as internal."""
    for code in get_args(ReasonCode):
        if code == run.reason_code:
            return Reason(code=code, message=run.reason or code.replace("_", " "))
    return Reason(code="internal", message=run.reason) if run.reason else None


def _by_user(intent: Intent, what: str) -> Reason:
    why = f": {intent.reason}" if intent.reason else ""
    return Reason(code="user_request", message=f"{what} by {intent.by}{why}")


def _no_server(facts: Facts) -> str:
    return f"no server is known to run on this store: run `un0 serve --store {facts.store_uri}`"
