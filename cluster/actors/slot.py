"""One slot of the fleet: what it is, its replica, and the assignments that it has."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import Any

from cluster.actors.node_meter import RunMeter
from cluster.actors.options import ReplicaOptions
from cluster.actors.outcomes import Progress
from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.ranges import Ranges
from cluster.scheduler.request import Usage
from cluster.types import Energy


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
class Assigned:
    """An assignment that the replica has. open: shards of which no outcome is known."""

    assignment: RunAssignment
    open: Ranges


@dataclass
class SlotHandle:
    """A slot, and the replica that is there while it is awake.

    incarnation: how many replicas have been here; each has a name of its own at the node's meter.
    heard: the last of them that is listened to; given_up: that does not answer.
    attempts: what the ids of its attempts begin with. assigned: by assignment, oldest first.
    under_way: by job, as last reported.
    """

    spec: SlotSpec
    incarnation: int = 0
    actor: Any = None
    meter: RunMeter | None = None
    model: str = ""
    host_name: str = ""
    hardware: str = ""
    provider: str = ""
    heard: int = 0
    given_up: int = 0
    attempts: str = ""
    assigned: dict[int, Assigned] = field(default_factory=dict)
    under_way: dict[str, Progress] = field(default_factory=dict)

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

    def expect(self, model: str) -> None:
        """Another replica is about to be started here."""
        self.incarnation += 1
        self.model = model
        self.attempts = uuid.uuid4().hex[:16]

    def assign(self, assignment: RunAssignment) -> None:
        """The replica is to run the assignment after its earlier ones."""
        shards = Ranges([(assignment.first, assignment.stop)])
        self.assigned[assignment.assignment_id] = Assigned(assignment, shards)

    def answered(self, assignment_id: int, first: int, stop: int) -> None:
        """The outcomes of these shards are known."""
        assigned = self.assigned.get(assignment_id)
        if assigned is not None:
            assigned.open.remove(first, stop)
            if not assigned.open:
                del self.assigned[assignment_id]

    @property
    def jobs_under_way(self) -> set[str]:
        """The jobs of which the replica has shards to make."""
        return {assigned.assignment.job_id for assigned in self.assigned.values()}

    @property
    def job_at_work(self) -> str | None:
        """The job whose shards it makes now; None if it is idle."""
        oldest = next(iter(self.assigned.values()), None)
        return None if oldest is None else oldest.assignment.job_id

    def vacate(self) -> None:
        """The replica is gone."""
        self.actor, self.model = None, ""
        self.assigned.clear()
        self.under_way.clear()


def usage_of(images: int, duration_s: float, energy: Energy) -> Usage:
    return Usage(images, duration_s, energy.energy_mj, energy.quality)
