"""The base of all baselines: jobs by deadline, assignments, retries, waking, parking.

A baseline chooses where the next piece of a job goes. It may be a device that is busy, asleep or
loaded with another model: the piece waits in that device's backlog, and the device is woken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from cluster.scheduler import commands, events
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.ranges import Ranges
from cluster.scheduler.request import JobRequest, OperatingPoint, Performance, StandbyCost
from cluster.states import JobState, ReplicaState

SENT = 2  # assignments in a device's own hands: the next is there when one ends


@dataclass
class Job:
    """A job, and its shards that are neither assigned nor done."""

    request: JobRequest
    waiting: Ranges
    committed: Ranges = field(default_factory=Ranges)

    @property
    def urgency(self) -> tuple[float, str]:
        deadline_s = self.request.deadline_s
        return (float("inf") if deadline_s is None else deadline_s), self.request.job_id


@dataclass(frozen=True)
class Piece:
    """Some shards of a job for one device. work_s: their predicted duration."""

    job: Job
    first: int
    stop: int
    point: OperatingPoint
    work_s: float


@dataclass
class Device:
    """A replica and its queue."""

    replica_id: str
    node_id: str
    hardware: str
    state: ReplicaState = ReplicaState.PARKED
    model: str = ""
    sent: dict[int, Piece] = field(default_factory=dict)
    backlog: deque[Piece] = field(default_factory=deque)
    work_s: float = 0.0
    idle_since_s: float = 0.0

    @property
    def pieces(self) -> int:
        return len(self.sent) + len(self.backlog)


class Baseline:
    """Base of every baseline. Subclasses differ in ``choose``.

    lease_s: work in a piece. park_after_s: idle time after which a device is parked; None is never,
    and then every device is woken as it joins.
    """

    assignment_s = 60.0
    park_after_s: float | None = None

    def __init__(self, book: ProfileBook, models: tuple[str, ...]) -> None:
        self.book, self.models = book, models
        self.devices: dict[str, Device] = {}
        self.now_s = 0.0
        self._jobs: dict[str, Job] = {}
        self._waiting: dict[str, Job] = {}  # those of them with shards that nobody has
        self._assignment_ids = count()
        self._out: list[commands.Command] = []
        self._on: dict[type, Callable[[Any], None]] = {
            events.JobSubmitted: self._submitted,
            events.ReplicaJoined: self._joined,
            events.ReplicaAwake: self._woke,
            events.ReplicaParked: self._parked,
            events.ReplicaLost: self._lost,
            events.NodeLost: self._node_lost,
            events.ShardsCommitted: self._committed,
        }

    def choose(self, job: Job) -> tuple[Device, Performance] | None:
        """The device and point for the next piece of this job; None: none yet."""
        raise NotImplementedError

    def handle(self, event: events.Event) -> list[commands.Command]:
        """Apply the events, assign waiting work, wake and park devices."""
        self.now_s = event.at_s
        if type(event) in self._on:
            self._on[type(event)](event)
        self._hand_out()
        for device in self.devices.values():
            self._see_to(device)
        self._remind()
        out, self._out = self._out, []
        return out

    # What a choice is made from

    def fits(self, job: Job, room: int | None = None) -> Iterator[Device]:
        """Devices that can run the job; with ``room``, only those with fewer pieces than that."""
        for device in self.devices.values():
            known = self.book.profile(device.hardware, job.request.model) is not None
            if known and (room is None or device.pieces < room):
                yield device

    def fastest(self, device: Device, job: Job) -> Performance:
        return max(self._curve(device, job), key=lambda p: p.images_per_s)

    def leanest(self, device: Device, job: Job) -> Performance:
        return min(self._curve(device, job), key=lambda p: p.energy_per_image_j)

    def standby(self, device: Device, job: Job) -> StandbyCost:
        profile = self.book.profile(device.hardware, job.request.model)
        assert profile is not None
        return profile.standby

    def shards(self, job: Job, performance: Performance) -> int:
        """How many shards make a piece: ``lease_s`` of work on that device."""
        return max(
            1, round(self.assignment_s * performance.images_per_s / job.request.shard_images)
        )

    def _curve(self, device: Device, job: Job) -> tuple[Performance, ...]:
        profile = self.book.profile(device.hardware, job.request.model)
        assert profile is not None
        return profile.curve

    # Bookkeeping

    def _submitted(self, event: events.JobSubmitted) -> None:
        job = Job(event.job, Ranges([(0, event.job.shards)]))
        self._jobs[event.job.job_id] = self._waiting[event.job.job_id] = job

    def _joined(self, event: events.ReplicaJoined) -> None:
        device = Device(event.replica_id, event.node_id, event.hardware)
        self.devices[event.replica_id] = device

    def _woke(self, event: events.ReplicaAwake) -> None:
        device = self.devices[event.replica_id]
        device.state, device.idle_since_s = ReplicaState.AWAKE, self.now_s

    def _parked(self, event: events.ReplicaParked) -> None:
        self.devices[event.replica_id].state = ReplicaState.PARKED

    def _lost(self, event: events.ReplicaLost) -> None:
        device = self.devices[event.replica_id]
        for piece in (*device.sent.values(), *device.backlog):
            for part in piece.job.committed.missing(piece.first, piece.stop):
                piece.job.waiting.add(*part)
                self._waiting[piece.job.request.job_id] = piece.job
        self.devices[event.replica_id] = Device(device.replica_id, device.node_id, device.hardware)

    def _node_lost(self, event: events.NodeLost) -> None:
        for device in [d for d in self.devices.values() if d.node_id == event.node_id]:
            self._lost(events.ReplicaLost(event.at_s, device.replica_id, event.reason))
            del self.devices[device.replica_id]

    def _committed(self, event: events.ShardsCommitted) -> None:
        device, job = self.devices[event.replica_id], self._jobs[event.job_id]
        job.committed.add(event.first, event.stop)
        piece = device.sent[event.assignment_id]
        if event.usage is not None:
            self.book.observe(device.hardware, job.request.model, piece.point, event.usage)
        if event.stop == piece.stop:
            del device.sent[event.assignment_id]
            device.work_s -= piece.work_s
            device.idle_since_s = self.now_s
        if job.committed.size == job.request.shards:
            del self._jobs[event.job_id]
            self._out.append(commands.FinishJob(event.job_id, JobState.COMPLETED))

    # What is to be done

    def _hand_out(self) -> None:
        full: set[str] = set()  # models for which there is no room, whatever the job
        for job in sorted(self._waiting.values(), key=lambda job: job.urgency):
            while job.waiting and job.request.model not in full:
                choice = self.choose(job)
                if choice is None:
                    full.add(job.request.model)
                    break
                device, performance = choice
                first, stop = job.waiting.take(self.shards(job, performance))
                work_s = job.request.images_in(first, stop) / performance.images_per_s
                device.backlog.append(Piece(job, first, stop, performance.point, work_s))
                device.work_s += work_s
            if not job.waiting:
                del self._waiting[job.request.job_id]

    def _see_to(self, device: Device) -> None:
        """Send it work, wake it or park it."""
        while device.state == ReplicaState.AWAKE and device.backlog and len(device.sent) < SENT:
            if device.backlog[0].job.request.model != device.model:
                break
            self._send(device, device.backlog.popleft())
        if device.state == ReplicaState.PARKED and (device.backlog or self.park_after_s is None):
            self._wake(device)
        elif device.state == ReplicaState.AWAKE and not device.sent:
            idle_s = self.now_s - device.idle_since_s
            bored = self.park_after_s is not None and idle_s >= self.park_after_s - 1e-6
            if device.backlog or bored:  # what waits there is for another model
                device.state = ReplicaState.PARKING
                self._out.append(commands.ParkReplica(device.replica_id))

    def _send(self, device: Device, piece: Piece) -> None:
        assignment = commands.RunAssignment(
            next(self._assignment_ids),
            device.replica_id,
            piece.job.request.job_id,
            piece.first,
            piece.stop,
            piece.point,
        )
        device.sent[assignment.assignment_id] = piece
        self._out.append(assignment)

    def _wake(self, device: Device) -> None:
        wanted = [piece.job.request.model for piece in list(device.backlog)[:1]]
        for model in (*wanted, *self.models):
            profile = self.book.profile(device.hardware, model)
            if profile is not None:
                device.state, device.model = ReplicaState.WAKING, model
                point = profile.curve[0].point
                self._out.append(commands.WakeReplica(device.replica_id, model, point))
                return

    def _remind(self) -> None:
        """Come back when the next idle device has been idle for long enough."""
        if self.park_after_s is None:
            return
        awake = [d for d in self.devices.values() if d.state == ReplicaState.AWAKE]
        idle = [d.idle_since_s for d in awake if not d.sent]
        if idle:
            self._out.append(commands.RemindMe(min(idle) + self.park_after_s))
