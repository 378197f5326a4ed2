"""What the world tells the scheduler. Frozen values; times and effects live outside."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Started:
    """The coordinator begins: ask for the replicas this job wants."""


@dataclass(frozen=True)
class ReplicaReady:
    """A replica has its model loaded and takes work."""

    replica_id: str


@dataclass(frozen=True)
class ReplicaLost:
    """A replica died, fell silent or could not start. ``fatal``: another one would fail too."""

    replica_id: str
    reason: str
    fatal: bool = False


@dataclass(frozen=True)
class ShardCommitted:
    """The shard has a commit record: this attempt's own, or another's that was there first."""

    replica_id: str
    shard: int


@dataclass(frozen=True)
class ShardFailed:
    """An attempt ended without a commit record. ``fatal``: no other attempt would fare better."""

    replica_id: str
    shard: int
    reason: str
    fatal: bool = False


@dataclass(frozen=True)
class StopRequested:
    """The user wants the job to stop now; what is committed stays."""


Event = Started | ReplicaReady | ReplicaLost | ShardCommitted | ShardFailed | StopRequested
