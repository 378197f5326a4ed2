"""What the scheduler asks for. The shell carries commands out and reports back as events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class SpawnReplica:
    """Start a replica under this id; answer with ReplicaReady or ReplicaLost."""

    replica_id: str


@dataclass(frozen=True)
class RunShard:
    """Let the replica make one attempt at the shard; answer with ShardCommitted or ShardFailed."""

    replica_id: str
    shard: int
    attempt: int


@dataclass(frozen=True)
class AbandonShards:
    """Tell every replica to give up what it has not finished generating."""


@dataclass(frozen=True)
class Finish:
    """The job is over. ``stopped`` jobs can be resumed; ``failed`` ones say why."""

    state: Literal["completed", "stopped", "failed"]
    reason: str = ""


Command = SpawnReplica | RunShard | AbandonShards | Finish
