"""What the world tells the scheduler. Frozen values; ``at_s`` is when, on the caller's clock."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.scheduler.request import JobRequest, Usage


@dataclass(frozen=True)
class JobSubmitted:
    """A job is there. done: ranges (first, stop) of its shards that are committed already."""

    at_s: float
    job: JobRequest
    done: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class StopRequested:
    """The user wants the job to stop now; what is committed stays. cancel: for good."""

    at_s: float
    job_id: str
    cancel: bool = False


@dataclass(frozen=True)
class ReplicaJoined:
    """There is room for a replica: one device of this hardware on this node. It is parked."""

    at_s: float
    replica_id: str
    node_id: str
    hardware: str


@dataclass(frozen=True)
class ReplicaAwake:
    """The replica has its model loaded and takes assignments. Answers WakeReplica."""

    at_s: float
    replica_id: str
    model: str
    usage: Usage | None = None


@dataclass(frozen=True)
class ReplicaParked:
    """The replica has let go of its model and its device. Answers ParkReplica."""

    at_s: float
    replica_id: str


@dataclass(frozen=True)
class ReplicaLost:
    """A replica died, fell silent or could not start; its assignments are lost.

    gone: its room is lost too. fatal: another one of this model would fail for the same reason.
    """

    at_s: float
    replica_id: str
    reason: str
    gone: bool = False
    fatal: bool = False


@dataclass(frozen=True)
class NodeLost:
    """A node and all its replicas are gone."""

    at_s: float
    node_id: str
    reason: str


@dataclass(frozen=True)
class NodeDraining:
    """A node will go: it takes no more assignments. until_s: what ends later is run elsewhere."""

    at_s: float
    node_id: str
    until_s: float | None = None


@dataclass(frozen=True)
class ShardsCommitted:
    """Shards ``first`` up to ``stop`` have commit records: this assignment's own, or another's that
    were there first. usage: what they took, where the replica that ran them tells."""

    at_s: float
    replica_id: str
    assignment_id: int
    job_id: str
    first: int
    stop: int
    usage: Usage | None = None


@dataclass(frozen=True)
class ShardFailed:
    """An attempt ended without a commit record. ``fatal``: no other attempt would fare better.

    revoked: it was given up on request, which is nobody's fault.
    """

    at_s: float
    replica_id: str
    assignment_id: int
    job_id: str
    shard: int
    reason: str
    fatal: bool = False
    revoked: bool = False
    usage: Usage | None = None


@dataclass(frozen=True)
class CapChanged:
    """The power that the fleet may draw; None is no cap."""

    at_s: float
    watts: float | None


@dataclass(frozen=True)
class Tick:
    """Time has passed: answers RemindMe."""

    at_s: float


Event = (
    JobSubmitted
    | StopRequested
    | ReplicaJoined
    | ReplicaAwake
    | ReplicaParked
    | ReplicaLost
    | NodeLost
    | NodeDraining
    | ShardsCommitted
    | ShardFailed
    | CapChanged
    | Tick
)
