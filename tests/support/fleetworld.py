"""A small world that obeys the scheduler's commands at once or when asked to, for its tests."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cluster.scheduler.commands import (
    Command,
    FinishJob,
    ParkReplica,
    RemindMe,
    RevokeAssignment,
    RunAssignment,
    TellUser,
    WakeReplica,
)
from cluster.scheduler.events import (
    Event,
    JobSubmitted,
    ReplicaAwake,
    ReplicaJoined,
    ReplicaLost,
    ReplicaParked,
    ShardFailed,
    ShardsCommitted,
    Tick,
)
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import Profile, ProfileBook
from cluster.scheduler.request import JobRequest, OperatingPoint, Performance, StandbyCost, Usage
from cluster.scheduler.state import SchedulerState
from cluster.types import EnergyQuality


def profile(
    hardware: str,
    rate: float,
    power_w: float,
    *,
    idle_w: float = 0.0,
    load_s: float = 0.0,
    load_j: float = 0.0,
    model: str = "m",
    samples: int = 1,
    faster: tuple[tuple[float, float], ...] = (),
    quality: EnergyQuality = "measured_counter",
    bounds_j: tuple[float, float] | None = None,
    price_per_h: float = 0.0,
    carbon_g_per_kwh: float = 0.0,
) -> Profile:
    """A profile with one point, or more: (images/s, W) of each faster one."""
    low_j, high_j = bounds_j or (None, None)
    standby = StandbyCost(idle_w, load_s, load_j, price_per_h, carbon_g_per_kwh)
    points = [(rate, power_w), *faster]
    curve = tuple(
        Performance(
            OperatingPoint(64, w if faster else None), r, w, quality, low_j, high_j, samples
        )
        for r, w in points
    )
    return Profile(hardware, model, standby, curve)


@dataclass
class FleetWorld:
    """Keeps what the scheduler has asked for until the test lets it happen. Time moves by hand."""

    profiles: list[Profile]
    policy: Policy = field(default_factory=Policy)
    cap_w: float | None = None

    def __post_init__(self) -> None:
        self.state = SchedulerState(ProfileBook(self.profiles), self.policy, self.cap_w)
        self.now_s = 0.0
        self.reminder_s: float | None = None
        self.waking: dict[str, WakeReplica] = {}
        self.parking: dict[str, None] = {}
        self.assignments: dict[str, list[RunAssignment]] = {}  # by replica, oldest first
        self.revoked: set[int] = set()
        self.committed: dict[str, list[int]] = {}
        self.ended: dict[str, FinishJob] = {}
        self.notices: list[TellUser] = []
        self.log: list[Command] = []
        self.parked: set[str] = set()
        self.hardware: dict[str, str] = {}
        self.stuck: set[str] = set()  # replicas that answer no more, in ``play``
        self._due_s: dict[str, float] = {}  # when waking replicas are awake, and busy ones done
        self._names = itertools.count()

    def send(self, *events: Event) -> list[Command]:
        """Tell the scheduler, take its commands, check that they can be obeyed."""
        commands = self.state.handle(*events)
        for command in commands:
            self._obey(command)
        self.log += commands
        self.state.validate()
        return commands

    def _obey(self, command: Command) -> None:
        match command:
            case WakeReplica(replica_id):
                assert replica_id in self.parked, "woke a replica that is not parked"
                self.parked.remove(replica_id)
                self.waking[replica_id] = command
            case ParkReplica(replica_id):
                working = [
                    r
                    for r in self.assignments.pop(replica_id)
                    if r.assignment_id not in self.revoked
                ]
                assert not working, "parked a replica with work"
                self.parking[replica_id] = None
            case RunAssignment():
                assert command.replica_id in self.assignments, (
                    "leased to a replica that is not awake"
                )
                self.assignments[command.replica_id].append(command)
            case RevokeAssignment(assignment_id):
                self.revoked.add(assignment_id)
            case FinishJob(job_id):
                assert job_id not in self.ended, "a job ended twice"
                self.ended[job_id] = command
            case TellUser():
                self.notices.append(command)
            case RemindMe(at_s):
                self.reminder_s = at_s

    def submit(
        self,
        job_id: str = "j",
        shards: int = 10,
        *,
        done: tuple[tuple[int, int], ...] = (),
        **request: Any,
    ) -> None:
        """A job of shards of 100 images of model m, unless changed."""
        model, shard_images = request.pop("model", "m"), request.pop("shard_images", 100)
        job = JobRequest(job_id, model, shards * shard_images, shard_images, **request)
        self.send(JobSubmitted(self.now_s, job, done))

    def assigned(self, replica_id: str | None = None) -> list[RunAssignment]:
        """All assignments that were ever given, or those of one replica."""
        assignments = [command for command in self.log if isinstance(command, RunAssignment)]
        return [
            assignment for assignment in assignments if replica_id in (None, assignment.replica_id)
        ]

    def woken(self) -> list[str]:
        """The hardware of every replica that was ever woken."""
        return [self.hardware[c.replica_id] for c in self.log if isinstance(c, WakeReplica)]

    def join(self, hardware: str, *more: str, node: str | None = None) -> str:
        """A replica joins, or several at once. The name of the first."""
        names = [f"r{next(self._names)}" for _ in (hardware, *more)]
        self.parked.update(names)
        self.hardware |= zip(names, (hardware, *more), strict=True)
        self.send(
            *(
                ReplicaJoined(self.now_s, name, node or f"node-{name}", self.hardware[name])
                for name in names
            )
        )
        return names[0]

    def awake(self, replica_id: str) -> None:
        wake = self.waking.pop(replica_id)
        self.assignments[replica_id] = []
        self.send(ReplicaAwake(self.now_s, replica_id, wake.model))

    def park(self, replica_id: str) -> None:
        del self.parking[replica_id]
        self.parked.add(replica_id)
        self.send(ReplicaParked(self.now_s, replica_id))

    def lose(
        self,
        replica_id: str,
        *,
        gone: bool = False,
        reason: str = "it died",
        at_work: tuple[str, int] | Literal["first"] | None = "first",
    ) -> None:
        """at_work: the job and shard that its device was at; "first" of those that it has."""
        if at_work == "first":
            held_now = self.assignments.get(replica_id)
            at_work = (held_now[0].job_id, held_now[0].first) if held_now else None
        for held in (self.waking, self.parking, self.assignments):
            held.pop(replica_id, None)  # type: ignore[attr-defined]
        self.parked.discard(replica_id)
        if not gone:
            self.parked.add(replica_id)
        self.send(ReplicaLost(self.now_s, replica_id, reason, gone=gone, at_work=at_work))

    def commit(
        self, replica_id: str, shards: int | None = None, *, forget: bool = True
    ) -> RunAssignment:
        """The replica's oldest assignment is done, or its first so many shards are."""
        assignment = self.assignments[replica_id][0]
        stop = (
            assignment.stop if shards is None else min(assignment.stop, assignment.first + shards)
        )
        if forget:
            rest = RunAssignment(
                assignment.assignment_id,
                replica_id,
                assignment.job_id,
                stop,
                assignment.stop,
                assignment.point,
            )
            self.assignments[replica_id][:1] = [rest] if stop < assignment.stop else []
        self.committed.setdefault(assignment.job_id, []).extend(range(assignment.first, stop))
        usage = self.usage(assignment, stop)
        self.send(
            ShardsCommitted(
                self.now_s,
                replica_id,
                assignment.assignment_id,
                assignment.job_id,
                assignment.first,
                stop,
                usage,
            )
        )
        return assignment

    def fail(
        self, replica_id: str, reason: str = "broken", *, fatal: bool = False
    ) -> RunAssignment:
        """The first shard of the replica's oldest assignment fails."""
        assignment = self.assignments[replica_id][0]
        rest = replace(assignment, first=assignment.first + 1)
        self.assignments[replica_id][:1] = [rest] if assignment.first + 1 < assignment.stop else []
        revoked = assignment.assignment_id in self.revoked
        self.send(
            ShardFailed(
                self.now_s,
                replica_id,
                assignment.assignment_id,
                assignment.job_id,
                assignment.first,
                reason,
                fatal,
                revoked,
            )
        )
        return assignment

    def usage(self, assignment: RunAssignment, stop: int) -> Usage | None:
        """Just what was believed, so that beliefs stay."""
        job = self.state.jobs.get(assignment.job_id)
        if job is None:
            return None
        curve = self._profile(assignment.replica_id).curve
        point = next(p for p in curve if p.point == assignment.point)
        images = job.request.images_in(assignment.first, stop)
        energy_mj = round(images * point.energy_per_image_j * 1000)
        return Usage(images, images / point.images_per_s, energy_mj, "measured_counter")

    def tick(self, seconds: float = 0.0) -> None:
        self.now_s += seconds
        self.send(Tick(self.now_s))

    def run(self, steps: int = 3000, *, until_s: float = float("inf")) -> None:
        """Obey everything at once, one assignment at a time, until nothing is left to do."""
        for _ in range(steps):
            if self.waking:
                self.awake(next(iter(self.waking)))
            elif self.parking:
                self.park(next(iter(self.parking)))
            elif any(self.assignments.values()):
                self._finish_next()
            elif self.state.jobs and self.reminder_s is not None and self.reminder_s <= until_s:
                self.now_s = max(self.now_s, self.reminder_s)
                self.tick()
            else:
                return
        raise AssertionError(
            f"still not through after {steps} steps: {self.state.jobs} {self.state.slots} "
            f"{self.log[-20:]}"
        )

    def play(self, until_s: float = float("inf"), steps: int = 100_000) -> None:
        """Let everything take the time that is believed of it, up to some time or until all jobs
        are over and nothing moves."""
        for _ in range(steps):
            self._schedule()
            due = [(at_s, name) for name, at_s in self._due_s.items() if name not in self.stuck]
            at_s, name = min(due, default=(float("inf"), ""))
            if self.reminder_s is not None and self.reminder_s < at_s:
                at_s, name = self.reminder_s, ""
            if at_s > until_s or at_s == float("inf"):
                self.now_s = until_s if until_s < float("inf") else self.now_s
                return
            self.now_s = max(self.now_s, at_s)
            self._happen(name)
        raise AssertionError(f"still not through after {steps} steps: {self.log[-20:]}")

    def _schedule(self) -> None:
        """When the next thing is due of every replica that does something."""
        moving = [*self.waking, *self.parking, *(n for n, own in self.assignments.items() if own)]
        self._due_s = {name: at_s for name, at_s in self._due_s.items() if name in moving}
        for name in moving:
            if name in self._due_s:
                continue
            takes_s = 0.0
            if name in self.waking:
                takes_s = self._profile(name).standby.load_s
            elif (
                name in self.assignments
                and self.assignments[name][0].assignment_id not in self.revoked
            ):
                assignment = self.assignments[name][0]
                usage = self.usage(assignment, assignment.stop)
                takes_s = usage.duration_s if usage else 0.0
            self._due_s[name] = self.now_s + takes_s

    def _happen(self, name: str) -> None:
        self._due_s.pop(name, None)
        if not name:
            self.reminder_s = None
            self.tick()
        elif name in self.waking:
            self.awake(name)
        elif name in self.parking:
            self.park(name)
        elif self.assignments[name][0].assignment_id in self.revoked:
            self.fail(name)
        else:
            self.commit(name)

    def _profile(self, replica_id: str) -> Profile:
        return next(p for p in self.profiles if p.hardware == self.hardware[replica_id])

    def _finish_next(self) -> None:
        busy = [name for name, assignments in self.assignments.items() if assignments]
        name = min(busy, key=lambda n: self.assignments[n][0].assignment_id)
        if self.assignments[name][0].assignment_id in self.revoked:
            self.fail(name)
        else:
            self.commit(name)
