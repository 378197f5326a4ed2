"""Commands of the scheduler. Its caller carries them out and reports the outcome as events."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.scheduler.request import OperatingPoint
from cluster.states import JobEnd
from cluster.types import SetAside


@dataclass(frozen=True)
class WakeReplica:
    """Load the model on a parked replica. Answered by ReplicaAwake or ReplicaLost."""

    replica_id: str
    model: str
    point: OperatingPoint


@dataclass(frozen=True)
class ParkReplica:
    """Unload the model and release the device. Answered by ReplicaParked or ReplicaLost.

    The replica has no assignment.
    """

    replica_id: str


@dataclass(frozen=True)
class RunAssignment:
    """Run shards ``first`` up to, not including, ``stop`` after the replica's earlier assignments.

    Answered for each shard by ShardsCommitted, which may cover several, or ShardFailed.
    """

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
    """Give up the shards that are not generated yet. Answered by ShardFailed(revoked) for each."""

    assignment_id: int
    replica_id: str
    job_id: str


@dataclass(frozen=True)
class FinishJob:
    """The job has ended in this state. reason: why, if it failed or paused.

    set_aside: the shards missing from a job that is ``completed_with_errors``.
    """

    job_id: str
    state: JobEnd
    reason: str = ""
    set_aside: tuple[SetAside, ...] = ()


@dataclass(frozen=True)
class TellUser:
    """Report why the job stands still. Sent when the reason changes; empty: it moves again."""

    job_id: str
    reason: str


@dataclass(frozen=True)
class RemindMe:
    """Send a Tick at this time, unless a later reminder replaces this one first."""

    at_s: float


Command = (
    WakeReplica | ParkReplica | RunAssignment | RevokeAssignment | FinishJob | TellUser | RemindMe
)
