"""What a server remembers of a job between two looks at it, and how it looks at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from random import Random

from cluster.progress import Snapshot
from cluster.states import JobState
from cluster.storage.commit import ended_state
from cluster.storage.epoch import holder_of, newest
from cluster.storage.intents import newest_intent
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import Liveness, RunStatus, newest_run
from cluster.types import JobRecord
from jobs.server.decide import Facts, Holder, Run

PAUSE_BASE_S, PAUSE_CAP_S = 1.0, 60.0


@dataclass
class Pause:
    """A wait after failures: exponential, with full jitter, bounded."""

    tries: int = 0
    until_s: float = 0.0

    def begin(self, now_s: float, random: Random) -> float:
        """Wait after another failure; for how long, in seconds."""
        self.tries += 1
        longest_s = min(PAUSE_CAP_S, PAUSE_BASE_S * 2 ** min(self.tries, 16))
        wait_s = random.uniform(0, longest_s)
        self.until_s = now_s + wait_s
        return wait_s

    def end(self) -> None:
        """It works again."""
        self.tries, self.until_s = 0, 0.0


class Held:
    """A job that a server has looked at. begun, dropped, stopping: see ``Facts``."""

    def __init__(self, job_id: str) -> None:
        self.job_id = job_id
        self.record: JobRecord | None = None
        self.begun = self.dropped = 0
        self.stop_s: float | None = None
        self.hurried = False
        self.failures = 0
        self.failed: tuple[int, int] | None = None  # the failed run's claim, and what was committed
        self.trouble = Pause()  # in looking at it
        self.rest = Pause()  # after its run has failed
        self.put: RunStatus | None = None  # as last written down
        self.put_s = 0.0
        self.started_at: datetime | None = None

    def none_begun(self) -> None:
        """No run is answered for any more."""
        self.begun, self.stop_s, self.hurried = 0, None, False

    def is_overdue(self, now: datetime) -> bool:
        """Whether its deadline has passed, and it was submitted to end then."""
        record = self.record
        if record is None or record.spec.deadline is None:
            return False
        if record.spec.on_deadline != "stop":
            return False
        return now >= record.submitted_at + timedelta(seconds=record.spec.deadline)

    def note_failure(self, snapshot: Snapshot) -> None:
        """Count a run that has failed, once: from one on if it has committed something."""
        if self.failed is not None and self.failed[0] == snapshot.epoch:
            return
        before = None if self.failed is None else self.failed[1]
        self.failures = self.failures + 1 if before == snapshot.committed_images else 1
        self.failed = (snapshot.epoch, snapshot.committed_images)


def look(
    held: Held,
    store: ObjectStore,
    me: str,
    alive: Liveness,
    seen_s: float,
    now_s: float,
    now: datetime,
    snapshot: Snapshot | None,
    *,
    ready: bool,
    may_claim: bool,
) -> Facts:
    """The facts about a job, as they are in the store now. Raises ClusterError.

    seen_s: when the signs of life were read: a server is not dead because it was long ago.
    """
    intent = newest_intent(store, held.job_id)
    if intent is None:
        return Facts(wanted=None, intent=0)
    epoch = newest(store, held.job_id)
    status = newest_run(store, held.job_id)
    rests = status is not None and status.state == JobState.PAUSED
    return Facts(
        wanted=intent.wanted,
        intent=intent.number,
        epoch=epoch,
        holder=_holder(store, held.job_id, epoch, me, alive, seen_s),
        run=None if snapshot is None else Run(snapshot.epoch, snapshot.state),
        begun=held.begun,
        dropped=held.dropped,
        paused=status.intent if status is not None and rests else None,
        overdue=held.is_overdue(now),
        stopping_s=None if held.stop_s is None else now_s - held.stop_s,
        hurried=held.hurried,
        ready=ready and now_s >= held.rest.until_s,
        may_claim=may_claim,
        failures=held.failures,
        end=ended_state(store, held.job_id),
    )


def _holder(
    store: ObjectStore, job_id: str, epoch: int, me: str, alive: Liveness, seen_s: float
) -> Holder:
    name = holder_of(store, job_id, epoch) if epoch else None
    if name is None:  # a command's run, of which nobody can say whether it lives
        return Holder.NOBODY
    if name == me:
        return Holder.ME
    return Holder.ALIVE if alive.is_alive(name, seen_s) else Holder.DEAD
