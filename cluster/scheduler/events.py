"""Events that the scheduler's caller reports. Frozen; ``at_s``: when, on the caller's clock."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.scheduler.request import JobRequest, Usage


@dataclass(frozen=True)
class JobSubmitted:
    """A job was submitted. done: ranges (first, stop) of its shards that are committed already."""

    at_s: float
    job: JobRequest
    done: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class StopRequested:
    """The user stops the job; committed shards stay. cancel: it will not be resumed."""

    at_s: float
    job_id: str
    cancel: bool = False


@dataclass(frozen=True)
class ReplicaJoined:
    """A node offers a device for a replica, which starts parked."""

    at_s: float
    replica_id: str
    node_id: str
    hardware: str


@dataclass(frozen=True)
class ReplicaAwake:
    """The replica has loaded its model and takes assignments. Answers WakeReplica.

    usage: duration and energy of loading, if measured.
    """

    at_s: float
    replica_id: str
    model: str
    usage: Usage | None = None


@dataclass(frozen=True)
class ReplicaParked:
    """The replica has unloaded its model and released its device. Answers ParkReplica."""

    at_s: float
    replica_id: str


@dataclass(frozen=True)
class ReplicaLost:
    """A replica died, stopped answering or could not start; its assignments are lost.

    gone: its device is lost too. fatal: a new replica of this model would fail for the same reason.
    at_work: (job id, shard) that its device was at; None: unknown.
    """

    at_s: float
    replica_id: str
    reason: str
    gone: bool = False
    fatal: bool = False
    at_work: tuple[str, int] | None = None


@dataclass(frozen=True)
class NodeLost:
    """A node and all its replicas are gone."""

    at_s: float
    node_id: str
    reason: str


@dataclass(frozen=True)
class NodeDraining:
    """A node is going away and gets no more work. until_s: work that ends later runs elsewhere."""

    at_s: float
    node_id: str
    until_s: float | None = None


@dataclass(frozen=True)
class ShardsCommitted:
    """Shards ``first`` up to, not including, ``stop`` have commit records, by this assignment or
    by an earlier attempt. usage: their images, duration and energy, if this replica ran them."""

    at_s: float
    replica_id: str
    assignment_id: int
    job_id: str
    first: int
    stop: int
    usage: Usage | None = None


@dataclass(frozen=True)
class ShardFailed:
    """An attempt at a shard ended without a commit record.

    fatal: every other attempt would fail too. revoked: it was given up on request, and does not
    count as a failure.
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
    """The fleet's power cap is now ``watts``; None: no cap."""

    at_s: float
    watts: float | None


@dataclass(frozen=True)
class Tick:
    """Time has passed. Answers RemindMe."""

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
