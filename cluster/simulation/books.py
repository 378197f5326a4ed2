"""The simulator's own record of jobs, against which every scheduler command is checked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from cluster.errors import Fatal
from cluster.scenario.arrivals import Arrival
from cluster.scheduler.commands import Command, FinishJob, RunAssignment
from cluster.scheduler.events import Event
from cluster.scheduler.ranges import Ranges
from cluster.scheduler.request import JobRequest


class Scheduler(Protocol):
    """A scheduler under test: events in, commands out."""

    def handle(self, event: Event) -> list[Command]:
        """The commands to carry out after this event, in order."""


class InvalidCommand(Fatal):
    """The scheduler sent a command that cannot be carried out."""


class SimulationStuck(Fatal):
    """Jobs are unfinished and no event is left."""


@dataclass
class JobBook:
    """One job: its shards that are committed and that are assigned, and how it ended."""

    arrival: Arrival
    committed: Ranges = field(default_factory=Ranges)
    assigned: Ranges = field(default_factory=Ranges)
    done_s: float | None = None
    finish: FinishJob | None = None

    @property
    def request(self) -> JobRequest:
        return self.arrival.job

    @property
    def missed(self) -> bool:
        """Whether it has a deadline and was not complete by then."""
        deadline_s = self.request.deadline_s
        return deadline_s is not None and (self.done_s is None or self.done_s > deadline_s + 1e-6)

    def assignment(self, assignment: RunAssignment) -> None:
        """Record an assignment of its shards. Raises InvalidCommand."""
        if self.finish is not None:
            raise InvalidCommand(f"{assignment} of a job that is finished")
        if not 0 <= assignment.first < assignment.stop <= self.request.shards:
            raise InvalidCommand(f"{assignment}: the job has shards 0 to {self.request.shards - 1}")
        if self.committed.missing(assignment.first, assignment.stop) != [
            (assignment.first, assignment.stop)
        ]:
            raise InvalidCommand(f"{assignment} has shards that are committed already")
        taken = self.assigned.missing(assignment.first, assignment.stop) != [
            (assignment.first, assignment.stop)
        ]
        if taken and not assignment.speculative:
            raise InvalidCommand(f"{assignment} has shards that another lease has")
        self.assigned.add(assignment.first, assignment.stop)

    def end_assignment(self, assignment: RunAssignment) -> None:
        """The assignment is answered or lost. A twin of it, if it has one, is not looked after."""
        self.assigned.remove(assignment.first, assignment.stop)

    def commit(self, first: int, stop: int, now_s: float) -> int:
        """Record commits of these shards; returns the number of newly committed images."""
        fresh = self.committed.missing(first, stop)
        self.committed.add(first, stop)
        if self.committed.size == self.request.shards and self.done_s is None:
            self.done_s = now_s
        return sum(self.request.images_in(*part) for part in fresh)

    def end(self, command: FinishJob) -> None:
        """Record that the scheduler has ended the job. Raises InvalidCommand."""
        if self.finish is not None:
            raise InvalidCommand(f"{command}: it is finished already")
        accounted = Ranges(self.committed)
        for lost in command.set_aside:
            accounted.add(lost.shard, lost.shard + 1)
        whole = accounted.size == self.request.shards
        if command.state.startswith("completed") and not whole:
            missing = accounted.missing(0, self.request.shards)
            raise InvalidCommand(f"{command}, but shards {missing} are not committed")
        self.finish = command


@dataclass(frozen=True)
class SimulationResult:
    """The result of a simulated day. Energy is marginal: above what parked devices draw.

    metered_j: the same from the power over time, kept apart from the buckets. parked_j: what the
    devices would have drawn parked, in addition. watts: mean power of each bin_s. busy_s,
    present_s: device-seconds of generating, and in all.
    """

    jobs: Sequence[JobBook]
    energy_by_hardware_j: dict[str, dict[str, float]]
    parked_j: float
    metered_j: float
    watts: list[float]
    bin_s: float
    peak_w: float
    end_s: float
    busy_s: float
    present_s: float
    probed_images: int
    events: int
    assignments: int
    wakes: int

    def bucket_j(self, bucket: str) -> float:
        return sum(parts[bucket] for parts in self.energy_by_hardware_j.values())

    @property
    def energy_j(self) -> float:
        return sum(sum(parts.values()) for parts in self.energy_by_hardware_j.values())

    @property
    def images(self) -> int:
        """Committed, each once."""
        return sum(book.request.images_in(*part) for book in self.jobs for part in book.committed)

    @property
    def missed(self) -> int:
        return sum(book.missed for book in self.jobs)

    @property
    def miss_rate(self) -> float:
        """Of the jobs that have a deadline."""
        due = sum(book.request.deadline_s is not None for book in self.jobs)
        return self.missed / due if due else 0.0

    @property
    def makespan_s(self) -> float:
        """From the first arrival to the last commit."""
        done = [book.done_s for book in self.jobs if book.done_s is not None]
        return max(done) - min(book.arrival.at_s for book in self.jobs) if done else 0.0

    @property
    def utilisation(self) -> float:
        """Share of the devices' time that they generated."""
        return self.busy_s / self.present_s if self.present_s else 0.0
