"""What a server decides about a job, carried out on the store and the fleet."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from random import Random

from cluster.actors.options import RunRequest
from cluster.energy import sum_energy
from cluster.errors import ClusterError, FleetLost, UserError
from cluster.progress import Snapshot
from cluster.states import JobState
from cluster.storage.commit import find_manifest
from cluster.storage.epoch import claim_next, newest
from cluster.storage.finish import finalise
from cluster.storage.history import EventKind, append_event
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import RunStatus, overhead_of_runs, put_run
from cluster.types import JobRecord
from jobs.server.decide import STOP_WITHIN_S, Action, Facts
from jobs.server.held import Held
from jobs.server.ports import Clock, Fleet
from jobs.server.standing import (
    NO_REASON,
    Reason,
    may_pass,
    reason_of,
    state_of,
    status_of,
    why_failed,
)
from un0.errors import Un0Error

PUT_S = 2.0  # between two words on a run that goes on as it did
_ENDS: dict[Action, tuple[JobState, Reason]] = {
    Action.CANCEL: (JobState.CANCELLED, ("user_request", "")),
    Action.EXPIRE: (JobState.EXPIRED, ("deadline_passed", "")),
    Action.FAIL: (JobState.FAILED, ("internal", "")),
}
_MOVING = (JobState.STARTING, JobState.RUNNING, JobState.PAUSING)
STARTING: Reason = ("starting_replicas", "")
RAY_LOST: Reason = ("ray_lost", "the server reconnects to Ray")
logger = logging.getLogger(__name__)


class Hands:
    """Does what is decided. All raise ClusterError, of which FleetLost is the fleet's: what was to
    be done may have been done, and the next look at the job will tell."""

    def __init__(
        self,
        store: ObjectStore,
        me: str,
        request_of: Callable[[JobRecord], RunRequest],
        clock: Clock,
        random: Random,
    ) -> None:
        self._store, self._me, self._request_of = store, me, request_of
        self._clock, self._random = clock, random

    def do(
        self,
        action: Action,
        held: Held,
        facts: Facts,
        snapshot: Snapshot | None,
        fleet: Fleet | None,
    ) -> bool:
        """Carry it out; whether to look at the job again at once."""
        match action:
            case Action.LEAVE:
                if held.begun and held.begun == facts.epoch:
                    self._report(held, facts, snapshot)
                return False
            case Action.CLAIM:
                return self._claim(held, facts)
            case Action.BEGIN:
                self._begin(held, facts, snapshot, fleet)
                return False
            case Action.STOP | Action.HURRY:
                self._stop(held, facts, snapshot, fleet, hurry=action == Action.HURRY)
                return False
            case Action.ABANDON:
                assert facts.run is not None
                held.dropped = facts.run.epoch
                held.none_begun()
                logger.warning("job %s: its run did not end in time and is dropped", held.job_id)
                return True
            case Action.DROP:
                self._drop(held, facts, fleet)
                return True
            case Action.PAUSE:
                self._pause(held, facts, snapshot)
                return False
            case Action.CANCEL | Action.EXPIRE | Action.FAIL:
                self._end(action, held, facts, snapshot)
                return True
            case Action.CLEAN:
                self._clean(held, facts, snapshot, fleet)
                return False

    def note_end(self, held: Held, snapshot: Snapshot) -> None:
        """A run that this server has begun is over."""
        if snapshot.state != JobState.FAILED:
            held.rest.end()
            return
        if held.failed is not None and held.failed[0] == snapshot.epoch:
            return
        held.note_failure(snapshot)
        wait_s = held.rest.begin(self._clock.monotonic_s(), self._random)
        if may_pass(why_failed(snapshot)):
            held.failures = 0
        logger.warning(
            "job %s: its run failed: %s; next try in %.0f s at the earliest",
            held.job_id, snapshot.reason, wait_s,
        )  # fmt: skip

    def let_go(self, held: Held, snapshot: Snapshot | None) -> None:
        """The server ends: others may have the job. Raises ClusterError."""
        if held.put is not None and held.put.epoch == held.begun and held.put.state in _MOVING:
            facts = Facts(intent=held.put.intent, epoch=held.begun)
            reason: Reason = ("server_lost", "its server has ended; another goes on with it")
            self._write(held, facts, JobState.QUEUED, reason, snapshot)

    def _claim(self, held: Held, facts: Facts) -> bool:
        held.none_begun()
        epoch = claim_next(self._store, held.job_id, facts.epoch, self._me)
        if epoch is None:
            return True  # another was first; the next look says who
        held.put = None
        logger.info("job %s: claimed as its run %d", held.job_id, epoch)
        self._tell(held, "claimed", f"run {epoch} is this server's")
        ended = find_manifest(self._store, held.job_id)
        if ended is not None:  # whoever wrote it has not come to the marker
            finalise(self._store, held.job_id, ended.state)
        return True

    def _begin(
        self, held: Held, facts: Facts, snapshot: Snapshot | None, fleet: Fleet | None
    ) -> None:
        assert held.record is not None
        if fleet is None:
            return
        try:
            run = replace(self._request_of(held.record), epoch=facts.epoch)
        except (UserError, Un0Error) as error:
            self._write(held, facts, JobState.PAUSED, ("model_changed", str(error)), None)
            return
        # Before the fleet is asked: of a run that has begun without our knowing, this is the word
        state, reason = JobState.STARTING, STARTING
        if facts.under_way is not None and facts.under_way.state == JobState.RUNNING:
            state, reason = JobState.RUNNING, NO_REASON
        if held.put is None or (held.put.epoch, held.put.state) != (facts.epoch, state):
            self._write(held, facts, state, reason, snapshot)
        held.started_at = held.started_at or self._clock.utc()
        held.begun = facts.epoch  # even if no answer comes
        if not fleet.begin(run):
            held.begun = 0

    def _stop(
        self,
        held: Held,
        facts: Facts,
        snapshot: Snapshot | None,
        fleet: Fleet | None,
        *,
        hurry: bool,
    ) -> None:
        if fleet is None:
            return
        fleet.stop(held.job_id, facts.epoch, STOP_WITHIN_S, hurry=hurry)
        if hurry:
            held.hurried = True
            return
        held.stop_s = self._clock.monotonic_s()
        self._report(held, replace(facts, stopping_s=0.0), snapshot)

    def _drop(self, held: Held, facts: Facts, fleet: Fleet | None) -> None:
        epoch = held.begun
        held.none_begun()
        held.put = None
        logger.warning("job %s: run %d is this server's no more", held.job_id, epoch)
        if fleet is None:
            return
        fleet.stop(held.job_id, epoch, STOP_WITHIN_S, hurry=facts.end is not None)
        fleet.forget(held.job_id, epoch)

    def _pause(self, held: Held, facts: Facts, snapshot: Snapshot | None) -> None:
        reason: Reason = ("user_request", "")
        if facts.goal != Action.PAUSE and snapshot is not None:
            reason = ("energy_budget", snapshot.reason)
        self._write(held, facts, JobState.PAUSED, reason, snapshot)
        held.none_begun()

    def _end(self, action: Action, held: Held, facts: Facts, snapshot: Snapshot | None) -> None:
        state, reason = _ENDS[action]
        if action == Action.FAIL and newest(self._store, held.job_id) != facts.epoch:
            return
        assert held.record is not None
        spent = [overhead_of_runs(self._store, held.job_id, before=facts.epoch)]
        if snapshot is not None and snapshot.overhead.energy_mj is not None:
            spent.append(snapshot.overhead)
        finalise(
            self._store,
            held.job_id,
            state,
            shards=held.record.workload.num_shards,
            overhead=sum_energy(spent),
            set_aside=() if snapshot is None or action != Action.FAIL else snapshot.set_aside,
        )
        if action == Action.FAIL and snapshot is not None:
            reason = why_failed(snapshot)
        self._write(held, facts, state, reason, snapshot)
        held.none_begun()

    def _clean(
        self, held: Held, facts: Facts, snapshot: Snapshot | None, fleet: Fleet | None
    ) -> None:
        """The last word on a run of this server, and the job is looked at no more."""
        assert facts.end is not None
        ours = snapshot is not None and snapshot.epoch == held.begun == facts.epoch
        if ours and snapshot is not None:
            self._write(held, facts, facts.end, (None, snapshot.reason), snapshot)
        if snapshot is not None and fleet is not None and snapshot.epoch <= facts.epoch:
            fleet.forget(held.job_id, facts.epoch)
        self._store.delete(JobLayout(held.job_id).active)

    def _report(self, held: Held, facts: Facts, snapshot: Snapshot | None) -> None:
        """Write down how the run stands, if it is news or it is time to."""
        if snapshot is not None and snapshot.epoch != facts.epoch:
            snapshot = None
        if snapshot is not None and snapshot.is_over:
            reason = why_failed(snapshot) if snapshot.state == JobState.FAILED else NO_REASON
            state = JobState.QUEUED
        elif snapshot is None and facts.stopping_s is None:
            state, reason = JobState.QUEUED, RAY_LOST
        else:
            state, reason = state_of(facts), reason_of(facts, snapshot)
        due = self._clock.monotonic_s() - held.put_s >= PUT_S
        put = held.put
        if due or put is None or (put.state, put.intent) != (state, facts.intent):
            self._write(held, facts, state, reason, snapshot)

    def _write(
        self,
        held: Held,
        facts: Facts,
        state: JobState,
        reason: Reason,
        snapshot: Snapshot | None,
    ) -> None:
        """Write down how the run stands, and in the job's history a state that is new."""
        if snapshot is not None and snapshot.epoch > facts.epoch:
            snapshot = None
        status: RunStatus = status_of(
            facts,
            held.job_id,
            self._me,
            state,
            reason,
            self._clock.utc(),
            snapshot=snapshot,
            started_at=held.started_at,
        )
        put_run(self._store, status)
        before, held.put, held.put_s = held.put, status, self._clock.monotonic_s()
        if before is None or before.state != state:
            logger.info("job %s: %s%s", held.job_id, state, f" ({reason[1]})" if reason[1] else "")
            self._tell(held, "state", reason[1] or f"it is {state}", state)

    def _tell(
        self, held: Held, kind: EventKind, message: str, state: JobState | None = None
    ) -> None:
        try:
            append_event(
                self._store,
                held.job_id,
                kind,
                message,
                self._clock.utc(),
                by=self._me,
                state=state,
            )
        except FleetLost:
            raise
        except ClusterError as error:  # the history is for people: the job goes on
            logger.warning("job %s: its history lacks %r: %s", held.job_id, message, error)
