"""Jobs: which shards are open, assigned, done or set aside. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from cluster.scheduler.ranges import Ranges
from cluster.scheduler.request import JobRequest, OperatingPoint
from cluster.states import JobEnd
from cluster.types import SetAside

SUSPECTS_LOOKED_AT = 32  # for one to run, so that many of them cost little


@dataclass
class Assignment:
    """Shards that a replica was asked to run. Created by ``dispatch``."""

    assignment_id: int
    replica_id: str
    job_id: str
    #: Shards that the replica has not reported as committed or failed. Only shrinks.
    open: Ranges
    #: Batch size and power cap to run at.
    point: OperatingPoint
    #: When the replica started it, s; until it has, when it was assigned. Set by ``Core.begin``.
    began_s: float
    #: Predicted duration of the whole assignment, s.
    predicted_s: float
    #: Predicted energy of the whole assignment, J.
    predicted_j: float
    #: Predicted power while it runs, mW.
    power_mw: int
    #: Number of shards at the start.
    shards: int
    #: It runs at this point to measure it.
    probe: bool = False
    #: It runs shards that a late assignment holds.
    speculative: bool = False
    #: Another assignment holds some of its shards too: one of the two is speculative.
    twin: bool = False
    #: One shard that is suspected. The replica has nothing else: if it dies, that shard did it.
    alone: bool = False
    #: The replica was asked to give up what it has not generated. Set by ``Core.revoke``.
    revoked: bool = False

    @property
    def open_share(self) -> float:
        """Open shards over all its shards, 0 to 1."""
        return self.open.size / self.shards

    @property
    def reserved_j(self) -> float:
        """Predicted energy of its open shards, J."""
        return self.predicted_j * self.open_share


@dataclass
class Job:
    """One job's shards. Every shard is waiting, assigned, done or set aside."""

    request: JobRequest
    #: Place in the order of submission, from 1.
    number: int
    #: When it was submitted, s.
    came_s: float = 0.0

    # --- Where each shard is ---

    #: Shards to assign that have not failed. Changed by ``take``, ``put_back`` and ``finish``.
    waiting: Ranges = field(default_factory=Ranges)
    #: Shards to assign of which an attempt failed. Each is assigned alone, to a replica that has
    #: nothing else, so that the next failure shows which shard caused it.
    suspects: Ranges = field(default_factory=Ranges)
    #: Open assignments by id. Added by ``dispatch``, removed by ``Core.drop_assignment``.
    assignments: dict[int, Assignment] = field(default_factory=dict)
    #: Committed shards. Only grows, by ``finish``.
    done: Ranges = field(default_factory=Ranges)
    #: Shards that failed too often, which the job goes on without. Set by ``blame``.
    set_aside: dict[int, SetAside] = field(default_factory=dict)

    # --- Failures and second attempts ---

    #: Failed attempts by shard, of shards that are not done. Counted by ``blame``.
    attempts: dict[int, int] = field(default_factory=dict)
    #: Hardware of the last failed attempt, by shard. Set by ``blame``.
    failed_on: dict[int, str] = field(default_factory=dict)
    #: Shards that were under way on a replica that died, maybe of another. Added by ``witness``.
    witnesses: Ranges = field(default_factory=Ranges)
    #: Speculative assignments created so far. Counted by ``dispatch``.
    twins: int = 0

    # --- Sums ---

    #: Energy of finished work, J: as reported, else as predicted. Counts against the budget.
    spent_j: float = 0.0
    #: Predicted energy of all open shards in assignments, J.
    reserved_j: float = 0.0
    #: Images of ``done``.
    done_images: int = 0
    #: Images of ``waiting`` and ``suspects``.
    waiting_images: int = 0

    # --- How it ends, and what its user knows ---

    #: The state it should end in, if its user asked for an end. Set by ``StopRequested``.
    stopping: JobEnd | None = None
    #: Since when no hardware in the fleet can run it, s; None: some can. Set by ``replan``.
    alone_s: float | None = None
    #: The reason for standing still that its user was last notified of; "": it moves.
    notified: str = ""

    @staticmethod
    def of(
        request: JobRequest, number: int, came_s: float, done: tuple[tuple[int, int], ...]
    ) -> Job:
        job = Job(request, number, came_s)
        job.put_back(0, request.shards)
        for first, stop in done:
            job.finish(first, stop)
        return job

    @property
    def images_left(self) -> int:
        """Images that are neither done nor set aside."""
        aside = sum(self.request.images_in(shard, shard + 1) for shard in self.set_aside)
        return self.request.images - self.done_images - aside

    @property
    def shards_left(self) -> int:
        """Shards that are neither done nor set aside."""
        return self.request.shards - self.done.size - len(self.set_aside)

    @property
    def has_work(self) -> bool:
        """Whether it has shards to assign."""
        return bool(self.waiting) or bool(self.suspects)

    def missed(self, now_s: float) -> bool:
        """Whether its deadline has passed."""
        return self.request.deadline_s is not None and now_s > self.request.deadline_s

    @property
    def has_budget(self) -> bool:
        return self.request.energy_budget_j is not None

    def take(self, most: int, hardware: str) -> tuple[int, int]:
        """Remove and return the next shards to assign as (first, stop), at most ``most`` of them.

        Suspects come alone: first those that have not failed on this hardware, last the others.
        """
        suspect = self.next_suspect(hardware)
        if suspect is None:
            first, stop = self.waiting.take(most)
        else:
            first, stop = suspect, suspect + 1
            self.suspects.remove(first, stop)
        self.waiting_images -= self.request.images_in(first, stop)
        return first, stop

    def next_suspect(self, hardware: str) -> int | None:
        """The suspect that ``take`` would return; None if it would return other shards."""
        suspects = islice((s for run in self.suspects for s in range(*run)), SUSPECTS_LOOKED_AT)
        fresh = next((s for s in suspects if self.failed_on.get(s) != hardware), None)
        if fresh is None and not self.waiting:
            return next((first for first, _ in self.suspects), None)
        return fresh

    def alone(self, first: int, stop: int) -> bool:
        """Whether this is a suspect by itself, to be run where nothing else is under way."""
        return stop - first == 1 and first in self.attempts

    def put_back(self, first: int, stop: int) -> None:
        """Have these shards wait again, unless they are done, set aside or assigned elsewhere."""
        for begin, end in self.done.missing(first, stop):
            for shard in self._free(begin, end):
                where = self.suspects if shard[0] in self.attempts else self.waiting
                added = where.add(*shard)
                assert added == shard[1] - shard[0], "a shard waits twice"
                self.waiting_images += self.request.images_in(*shard)

    def finish(self, first: int, stop: int) -> None:
        """Mark these shards as done."""
        for begin, end in self.done.missing(first, stop):
            for part in (self.waiting, self.suspects):
                for run in _overlap(part, begin, end):
                    part.remove(*run)
                    self.waiting_images -= self.request.images_in(*run)
            for shard in [s for s in self.set_aside if begin <= s < end]:
                del self.set_aside[shard]
            self.done.add(begin, end)
            self.done_images += self.request.images_in(begin, end)
        self.witnesses.remove(first, stop)
        if self.attempts:
            for shard in [s for s in self.attempts if first <= s < stop]:
                del self.attempts[shard], self.failed_on[shard]

    def has_twin(self, assignment: Assignment) -> bool:
        """Whether another assignment holds some of this one's open shards."""
        if not assignment.twin:
            return False
        others = [o for o in self.assignments.values() if o.twin and o is not assignment]
        return any(_overlap(o.open, *run) for o in others for run in assignment.open)

    def witness(self, shard: int) -> bool:
        """The shard was under way on a replica that died, perhaps of another; True if once more."""
        return not self.witnesses.add(shard, shard + 1)

    def blame(self, shard: int, reason: str, hardware: str, most: int, *, sure: bool) -> bool:
        """Count a failed attempt at the shard; True if this sets it aside, as the ``most``-th does.

        sure: no other shard can have caused the failure. Else it counts once at most, and sets
        nothing aside: an innocent shard is cleared by its next attempt, which it gets alone.
        """
        if sure or shard not in self.attempts:
            self.attempts[shard] = self.attempts.get(shard, 0) + 1
        self.failed_on[shard] = hardware
        if not sure or self.attempts[shard] < most or shard in self.done:
            return False
        self.set_aside[shard] = SetAside(shard=shard, attempts=self.attempts[shard], reason=reason)
        return True

    def _free(self, first: int, stop: int) -> Iterator[tuple[int, int]]:
        """The parts of the range that are neither set aside nor assigned, suspects one by one."""
        taken = Ranges()
        twins = (
            [assignment.open for assignment in self.assignments.values() if assignment.twin]
            if self.twins
            else []
        )
        for part in (self.waiting, self.suspects, *twins):
            for begin, end in _overlap(part, first, stop):
                taken.add(begin, end)
        odd = [s for s in (*self.attempts, *self.set_aside) if first <= s < stop]
        for shard in odd:
            if shard not in self.set_aside and shard not in taken:
                yield shard, shard + 1
            taken.add(shard, shard + 1)
        yield from taken.missing(first, stop)

    def validate(self) -> None:
        """Raise AssertionError if a shard is lost, or in two places."""
        assigned = Ranges()
        for assignment in self.assignments.values():
            for first, stop in assignment.open:
                fresh = assigned.add(first, stop)
                assert fresh == stop - first or assignment.twin, "a shard is leased twice"
        for name, part in (("waiting", self.waiting), ("suspect", self.suspects)):
            for first, stop in part:
                assert not _overlap(self.done, first, stop), f"done, {name}"
                assert not _overlap(assigned, first, stop), f"leased, {name}"
                assert not any(first <= s < stop for s in self.set_aside), f"aside, {name}"
        known = Ranges()
        for part in (self.waiting, self.suspects, self.done, assigned):
            for first, stop in part:
                known.add(first, stop)
        for shard in self.set_aside:
            assert shard not in self.done, "a done shard is set aside"
            known.add(shard, shard + 1)
        assert known.size == self.request.shards, "a shard is lost"
        waiting = sum(
            self.request.images_in(*run) for p in (self.waiting, self.suspects) for run in p
        )
        assert waiting == self.waiting_images
        assert self.done_images == sum(self.request.images_in(*run) for run in self.done)


def _overlap(ranges: Ranges, first: int, stop: int) -> list[tuple[int, int]]:
    """The parts of the set that lie in first .. stop - 1."""
    return Ranges(ranges.missing(first, stop)).missing(first, stop)
