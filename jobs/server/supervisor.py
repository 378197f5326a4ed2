"""The loop of a server: which jobs there are, what is to be done about each, and doing it.

It has no thread and no clock of its own: ``tick`` is called every second, and everything it does is
a call of the store or the fleet. It may be killed, or stand still for any time, between any two.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from cluster.actors.options import RunRequest
from cluster.errors import ClusterError, FleetLost, NotFound, UserError
from cluster.progress import Snapshot
from cluster.storage.commit import parse_record
from cluster.storage.layout import ACTIVE, JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import (
    SILENCE_S,
    Beat,
    Liveness,
    put_beat,
    read_beats,
    sign_off,
)
from cluster.types import JobRecord
from jobs.server.carry_out import Hands
from jobs.server.decide import Action, Facts, decide
from jobs.server.held import Held, Pause, look
from jobs.server.ports import Clock, Fleet

BEAT_S = 2.0
STEPS = 6  # of one job in one tick
LOOKS = 2000  # at jobs that others have, or that wait, in one tick
LOOK_S = 1.0  # for these
MOST_RUNS = 256  # that one server has under way
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Identity:
    """Which server this is. server_id: unique to this life of its process."""

    server_id: str
    host_name: str
    pid: int
    address: str | None = None


class Supervisor:
    """Runs the store's jobs on a fleet, beside any number of others that do.

    request_of: a job as the scheduler is to see it; UserError where its model is not what it was
    submitted with. random: for the jitter of waits.
    fleet: None while there is none; it is set back to None when it is lost.
    """

    def __init__(
        self,
        store: ObjectStore,
        me: Identity,
        request_of: Callable[[JobRecord], RunRequest],
        clock: Clock,
        random: Random,
    ) -> None:
        self.fleet: Fleet | None = None
        self.lost_because = ""
        self._store, self._me, self._clock, self._random = store, me, clock, random
        self._hands = Hands(store, me.server_id, request_of, clock, random)
        self._alive = Liveness(SILENCE_S)
        self._beats = 0
        self._beat_s: float | None = None  # when one was last written
        self._seen_s = clock.monotonic_s()  # when reading those of others last began
        self._started_at = clock.utc()
        self._trouble = Pause()
        self._jobs: dict[str, Held] = {}
        self._after = ""  # the last of the jobs that were looked at in turn
        self._snapshots: Mapping[str, Snapshot] = {}

    @property
    def holds(self) -> tuple[str, ...]:
        """The jobs of which this server has begun runs."""
        return tuple(job_id for job_id, held in self._jobs.items() if held.begun)

    def tick(self) -> None:
        """Look at the jobs, and do what is to be done now. Raises nothing that a store or a fleet
        does: they are tried again later."""
        now_s = self._clock.monotonic_s()
        if now_s < self._trouble.until_s:
            return
        try:
            self._beat()
            self._see_others()
            active = [info.key.removeprefix(ACTIVE) for info in self._store.list(ACTIVE)]
        except ClusterError as error:
            wait_s = self._trouble.begin(now_s, self._random)
            logger.warning("the store cannot be used: %s; next try in %.0f s", error, wait_s)
            return
        self._trouble.end()
        self._look_at_fleet()
        own, others = self._in_turn(active)
        for job_id in own:
            self._attend(self._jobs[job_id])
            self._beat_again()
        began_s = self._clock.monotonic_s()
        for job_id in others:
            if self._clock.monotonic_s() - began_s > LOOK_S:
                break
            self._after = job_id
            self._attend(self._jobs.setdefault(job_id, Held(job_id)))
            self._beat_again()
        self._forget_ended(set(active))

    def stop_all(self, within_s: float) -> bool:
        """Ask every run to end; whether all have. To be repeated, before ``sign_off``."""
        self._look_at_fleet()
        left = False
        for held in self._jobs.values():
            snapshot = self._snapshots.get(held.job_id)
            if not held.begun or snapshot is None or snapshot.epoch != held.begun:
                continue
            if snapshot.is_over:
                continue
            left = True
            if held.stop_s is None and self.fleet is not None:
                held.stop_s = self._clock.monotonic_s()
                try:
                    self.fleet.stop(held.job_id, held.begun, within_s)
                except FleetLost as error:
                    self._lost(error)
        return not left

    def sign_off(self) -> None:
        """This server ends in good order: others may have its jobs at once. Raises ClusterError."""
        for held in self._jobs.values():
            if held.begun:
                self._hands.let_go(held, self._snapshots.get(held.job_id))
        sign_off(self._store, self._me.server_id)

    def _see_others(self) -> None:
        """Read the signs of life. Reading may take any time: they are as new as its end, and the
        silences in them as long as at its beginning."""
        self._seen_s = self._clock.monotonic_s()
        beats = read_beats(self._store)
        self._alive.see(beats, self._clock.monotonic_s())

    def _beat_again(self) -> None:
        """In the middle of a long tick."""
        try:
            self._beat()
        except ClusterError as error:
            logger.info("no sign of life could be given: %s", error)

    def _beat(self) -> None:
        now_s = self._clock.monotonic_s()
        if self._beat_s is not None and now_s - self._beat_s < BEAT_S:
            return
        self._beats += 1
        me = self._me
        put_beat(
            self._store,
            Beat(
                server_id=me.server_id,
                count=self._beats,
                host_name=me.host_name,
                pid=me.pid,
                address=me.address,
                jobs=len(self.holds),
                started_at=self._started_at,
                at=self._clock.utc(),
            ),
        )
        self._beat_s = now_s

    def _may_claim(self) -> bool:
        """Whether others have had a sign of life of late. Asked just before a claim."""
        now_s = self._clock.monotonic_s()
        return self._beat_s is not None and now_s - self._beat_s < SILENCE_S / 2

    def _look_at_fleet(self) -> None:
        self._snapshots = {}
        if self.fleet is None:
            return
        try:
            self._snapshots = self.fleet.snapshots()
        except FleetLost as error:
            self._lost(error)

    def _lost(self, error: FleetLost) -> None:
        logger.warning("%s; %d jobs wait for it", error, len(self.holds))
        self.fleet, self.lost_because = None, str(error)
        self._snapshots = {}

    def _in_turn(self, active: list[str]) -> tuple[list[str], list[str]]:
        """Those to look at now: this server's; and new ones, and some of the others by turns."""
        known = self._jobs
        own = [job_id for job_id in active if job_id in known and known[job_id].begun]
        own += [job_id for job_id in self.holds if job_id not in set(active)]
        rest = [job_id for job_id in active if job_id not in known]
        others = [job_id for job_id in active if job_id in known and not known[job_id].begun]
        at = next((i for i, job_id in enumerate(others) if job_id > self._after), 0)
        return own, (rest + others[at:] + others[:at])[:LOOKS]

    def _attend(self, held: Held) -> None:
        """Do what is to be done about a job now."""
        now_s = self._clock.monotonic_s()
        if now_s < held.trouble.until_s:
            return
        try:
            if held.record is None:
                key = JobLayout(held.job_id).spec
                held.record = parse_record(JobRecord, key, self._store.get(key))
            for _ in range(STEPS):
                if not self._step(held):
                    break
        except FleetLost as error:
            self._lost(error)
        except (UserError, NotFound) as error:  # half made, or a right is missing
            held.trouble.begin(now_s, self._random)
            logger.info("job %s is left for now: %s", held.job_id, error)
        except ClusterError as error:
            held.trouble.begin(now_s, self._random)
            logger.warning("job %s: %s", held.job_id, error)
        except Exception as error:  # one job must not keep this server from all others
            held.trouble.begin(now_s, self._random)
            self._surprised(held, error)
        else:
            held.trouble.end()

    def _surprised(self, held: Held, error: Exception) -> None:
        """Something that nobody has thought of, about a job."""
        logger.error("job %s is left for now", held.job_id, exc_info=error)

    def _step(self, held: Held) -> bool:
        """One look and one deed; whether to look again."""
        snapshot = self._snapshots.get(held.job_id)
        if snapshot is not None and snapshot.is_over and snapshot.epoch == held.begun:
            self._hands.note_end(held, snapshot)
        facts = self._look(held, snapshot)
        action = decide(facts)
        again = self._hands.do(action, held, facts, snapshot, self.fleet)
        if action in (Action.BEGIN, Action.CLEAN):
            self._snapshots = {k: s for k, s in self._snapshots.items() if k != held.job_id}
        if action == Action.CLEAN and held.job_id in self._jobs:
            del self._jobs[held.job_id]
        return again

    def _look(self, held: Held, snapshot: Snapshot | None) -> Facts:
        room = held.begun > 0 or len(self.holds) < MOST_RUNS
        return look(
            held,
            self._store,
            self._me.server_id,
            self._alive,
            self._seen_s,
            self._clock.monotonic_s(),
            self._clock.utc(),
            snapshot,
            ready=self.fleet is not None and room,
            may_claim=self._may_claim(),
        )

    def _forget_ended(self, active: set[str]) -> None:
        """Forget what has ended; have the fleet do so too where its server is gone."""
        for job_id in [j for j, held in self._jobs.items() if not held.begun and j not in active]:
            del self._jobs[job_id]
        if self.fleet is None:
            return
        for job_id, snapshot in self._snapshots.items():
            if snapshot.is_over and job_id not in active and job_id not in self._jobs:
                try:
                    self.fleet.forget(job_id, snapshot.epoch)
                except FleetLost as error:
                    self._lost(error)
                    return
