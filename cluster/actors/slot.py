"""One slot of the fleet: what it is, its replica, and the shards that are under way there."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cluster.actors.node_meter import RunMeter
from cluster.actors.options import ReplicaOptions
from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.request import Usage
from cluster.types import Energy

IN_FLIGHT = 2  # the next shard generates while the last is encoded and uploaded


@dataclass(frozen=True)
class SlotSpec:
    """What a slot is: a node's device, or some of its CPU threads, that can hold one replica.

    replica_id: the name that the scheduler, the displays and the logs know the slot by.
    """

    replica_id: str
    node_id: str
    host_name: str
    hardware: str
    options: ReplicaOptions


@dataclass
class Work:
    """What is left to begin of an assignment."""

    assignment: RunAssignment
    next: int

    @property
    def left(self) -> range:
        return range(self.next, self.assignment.stop)


@dataclass
class SlotHandle:
    """A slot, and the replica that is there while it is awake.

    incarnation: how many replicas have been here; each has a name of its own at the node's meter.
    running: by attempt, the assignment and shard.
    """

    spec: SlotSpec
    incarnation: int = 0
    actor: Any = None
    meter: RunMeter | None = None
    model: str = ""
    host_name: str = ""
    hardware: str = ""
    provider: str = ""
    queue: deque[Work] = field(default_factory=deque)
    running: dict[str, tuple[RunAssignment, int]] = field(default_factory=dict)

    @property
    def replica_id(self) -> str:
        return self.spec.replica_id

    @property
    def name(self) -> str:
        """Of the replica that is here now."""
        return f"{self.replica_id}.{self.incarnation}"

    def is_at(self, incarnation: int) -> bool:
        """Whether the replica of that number is still here."""
        return self.actor is not None and self.incarnation == incarnation

    def next_shard(self) -> tuple[RunAssignment, int] | None:
        """The next shard to begin, in order; None while enough are under way."""
        while self.queue and not self.queue[0].left:
            self.queue.popleft()
        if not self.queue or len(self.running) >= IN_FLIGHT:
            return None
        work = self.queue[0]
        shard, work.next = work.next, work.next + 1
        return work.assignment, shard

    def revoke(self, assignment_id: int) -> tuple[list[int], list[str]]:
        """Take the assignment back: its shards that have not begun, its attempts that have."""
        shards: list[int] = []
        for work in self.queue:
            if work.assignment.assignment_id == assignment_id:
                shards += work.left
                work.next = work.assignment.stop
        under_way = [
            a
            for a, (assignment, _) in self.running.items()
            if assignment.assignment_id == assignment_id
        ]
        return shards, under_way

    @property
    def jobs_under_way(self) -> set[str]:
        """The jobs of the attempts that are under way here."""
        return {assignment.job_id for assignment, _ in self.running.values()}

    def vacate(self) -> None:
        """The replica is gone."""
        self.actor, self.model = None, ""
        self.queue.clear()
        self.running.clear()


def usage_of(images: int, duration_s: float, energy: Energy) -> Usage:
    return Usage(images, duration_s, energy.energy_mj, energy.quality)
