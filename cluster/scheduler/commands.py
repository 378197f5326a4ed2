"""What the scheduler asks for. The shell carries commands out and reports back as events."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.scheduler.request import OperatingPoint
from cluster.states import JobEnd
from cluster.types import SetAside


@dataclass(frozen=True)
class WakeReplica:
    """Load the model on the parked replica; answer with ReplicaAwake or ReplicaLost."""

    replica_id: str
    model: str
    point: OperatingPoint


@dataclass(frozen=True)
class ParkReplica:
    """Unload the model and let go of the device; answer with ReplicaParked or ReplicaLost.

    The replica has no assignment.
    """

    replica_id: str


@dataclass(frozen=True)
class RunAssignment:
    """Run shards ``first`` up to ``stop``, after the replica's earlier assignments; answer with
    ShardsCommitted and ShardFailed for each of them, in any pieces."""

    assignment_id: int
    replica_id: str
    job_id: str
    first: int
    stop: int
    point: OperatingPoint
    probe: bool = False
    speculative: bool = False


@dataclass(frozen=True)
class RevokeAssignment:
    """Give up what of it is not generated yet; answer with ShardFailed(revoked) for that."""

    assignment_id: int
    replica_id: str
    job_id: str


@dataclass(frozen=True)
class FinishJob:
    """The job is over; ``stopped`` and ``paused`` ones can be resumed, ``failed`` ones say why.

    set_aside: the shards that ``completed_with_errors`` lacks.
    """

    job_id: str
    state: JobEnd
    reason: str = ""
    set_aside: tuple[SetAside, ...] = ()


@dataclass(frozen=True)
class TellUser:
    """Why the job is not moving, once for each reason; an empty reason: it moves again."""

    job_id: str
    reason: str


@dataclass(frozen=True)
class RemindMe:
    """Send a Tick at this time, unless a later reminder replaces this one first."""

    at_s: float


Command = (
    WakeReplica | ParkReplica | RunAssignment | RevokeAssignment | FinishJob | TellUser | RemindMe
)
