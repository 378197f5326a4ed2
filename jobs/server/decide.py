"""What a server does next about a job, given what it knows of it. Pure.

Whatever is decided may be carried out late, on facts that have changed meanwhile (the process may
stand still between any two steps), so nothing here is guarded by this file alone: a claim is a
conditional write, a run checks its claim before it begins, a stop names the claim of the server
that asks, and the first manifest of a job stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from cluster.states import ENDS, JobState
from cluster.storage.intents import Wanted

STOP_WITHIN_S = 45.0  # what a run is given to end by itself
HURRY_S = 60.0  # from the request: what is under way is given up
ABANDON_S = 75.0  # the run is dropped, and the job's state reached without it
MOST_FAILURES = 3  # runs in a row that failed and committed nothing


class Holder(StrEnum):
    """Who has made the job's newest claim."""

    NOBODY = "nobody"
    ME = "me"
    ALIVE = "alive"  # another server, that gives signs of life
    DEAD = "dead"  # another server, that does not


class Action(StrEnum):
    """What to do. Where nothing else is said, look again afterwards."""

    #: Nothing, for now.
    LEAVE = "leave"
    #: Take over, or have a claim of its own for another run.
    CLAIM = "claim"
    #: Give the job to the fleet under the newest claim, which is this server's.
    BEGIN = "begin"
    #: Ask the run to end.
    STOP = "stop"
    #: Ask it to give up what is under way.
    HURRY = "hurry"
    #: Wait for it no longer.
    ABANDON = "abandon"
    #: It is another server's now, or has ended: stop the run without ending the job.
    DROP = "drop"
    #: Write down that it is paused.
    PAUSE = "pause"
    #: End it for good as cancelled, expired or failed.
    CANCEL = "cancel"
    EXPIRE = "expire"
    FAIL = "fail"
    #: It has ended: no server need look at it any more.
    CLEAN = "clean"


@dataclass(frozen=True)
class Run:
    """A run of the job on this server's fleet. epoch: the claim that it goes under."""

    epoch: int
    state: JobState

    @property
    def is_over(self) -> bool:
        return self.state in ENDS


@dataclass(frozen=True)
class Facts:
    """What a server knows of a job.

    wanted, intent: the newest intent and its number; None, 0 of a job that is not the service's.
    end: how it ended, if it has. epoch, holder: the newest claim and whose it is; 0, NOBODY before
        any.
    run: what this server's fleet has of the job, by whichever server it was begun; None where it
        has nothing, or cannot be asked.
    begun: the claim under which this server has begun a run that it still answers for; 0: none.
    dropped: runs up to this claim are not waited for any more.
    paused: the intent upon which its newest run was written down as paused; None if it was not.
    overdue: its deadline has passed, and it is to end then.
    stopping_s: since this server asked the run to stop; None if it has not. hurried: for the second
        time.
    ready: the fleet can take it now: it is there, and no wait after a failure is left.
    may_claim: this server has given a sign of life of late, and others know that it lives.
    failures: runs in a row that failed without progress.
    """

    wanted: Wanted | None = "run"
    intent: int = 1
    end: JobState | None = None
    epoch: int = 0
    holder: Holder = Holder.NOBODY
    run: Run | None = None
    begun: int = 0
    dropped: int = 0
    paused: int | None = None
    overdue: bool = False
    stopping_s: float | None = None
    hurried: bool = False
    ready: bool = True
    may_claim: bool = True
    failures: int = 0

    @property
    def goal(self) -> Action:
        """What is to become of it: BEGIN (to run), PAUSE, CANCEL or EXPIRE."""
        if self.wanted == "cancel":
            return Action.CANCEL
        if self.overdue:
            return Action.EXPIRE
        return Action.PAUSE if self.wanted == "pause" else Action.BEGIN

    @property
    def under_way(self) -> Run | None:
        """A run on the fleet that goes on, and that the newest claim covers."""
        run = self.run
        if run is None or run.is_over or not self.dropped < run.epoch <= self.epoch:
            return None
        return run

    @property
    def has_own_run(self) -> bool:
        """Whether a run that this server has begun goes on."""
        run = self.run
        return run is not None and not run.is_over and run.epoch == self.begun

    @property
    def is_paused(self) -> bool:
        """Whether it rests, as the newest intent has it or until there is another."""
        return (
            self.goal in (Action.BEGIN, Action.PAUSE)
            and self.paused is not None
            and self.paused >= self.intent
        )


def decide(facts: Facts) -> Action:
    """The next thing to do about the job."""
    if facts.wanted is None:
        return Action.LEAVE
    if facts.end is not None:
        return Action.DROP if facts.has_own_run else Action.CLEAN
    if facts.begun and (facts.holder != Holder.ME or facts.begun != facts.epoch):
        return Action.DROP
    if facts.holder == Holder.ALIVE:
        return Action.LEAVE
    if facts.holder != Holder.ME:
        return Action.LEAVE if facts.is_paused else _claim(facts)
    if facts.under_way is not None:
        return _running(facts, facts.under_way)
    return Action.LEAVE if facts.is_paused else _resting(facts)


def _claim(facts: Facts) -> Action:
    """A claim for what is wanted; only a job that is to run waits for a fleet."""
    if not facts.may_claim or (facts.goal == Action.BEGIN and not facts.ready):
        return Action.LEAVE
    return Action.CLAIM


def _running(facts: Facts, run: Run) -> Action:
    """This server has the newest claim, and its fleet a run of the job."""
    if facts.goal == Action.BEGIN and run.state != JobState.STOPPING:
        return Action.BEGIN if run.epoch != facts.epoch else Action.LEAVE
    if facts.stopping_s is None:
        return Action.STOP
    if facts.stopping_s >= ABANDON_S:
        return Action.ABANDON
    if facts.stopping_s >= HURRY_S and not facts.hurried:
        return Action.HURRY
    return Action.LEAVE


def _resting(facts: Facts) -> Action:
    """This server has the newest claim, and nothing of the job is under way."""
    if facts.goal != Action.BEGIN:
        return facts.goal
    run = facts.run
    if run is not None and run.epoch == facts.epoch and run.is_over:
        if run.state == JobState.PAUSED:
            return Action.PAUSE
        if run.state == JobState.FAILED and facts.failures >= MOST_FAILURES:
            return Action.FAIL
        if run.state.is_terminal and run.state != JobState.FAILED:
            return Action.LEAVE  # its marker will be seen with the next look
        return _claim(facts)
    # A run is begun once under a claim: of one that is lost, something may still be at work
    if facts.begun or facts.dropped == facts.epoch:
        return _claim(facts)
    return Action.BEGIN if facts.ready else Action.LEAVE
