"""The scheduler: one mutator, ``handle(event) -> commands``. No Ray, torch, clock or I/O.

The coordinator feeds it what happened and carries out what it answers, so every decision about
who runs what, what is retried and when a job is over can be tested without a cluster.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterator
from typing import Literal

from cluster.scheduler.commands import AbandonShards, Command, Finish, RunShard, SpawnReplica
from cluster.scheduler.events import (
    Event,
    ReplicaLost,
    ReplicaReady,
    ShardCommitted,
    ShardFailed,
    Started,
    StopRequested,
)

LEASES_PER_REPLICA = 2  # the next shard is there before the last one ends
MAX_ATTEMPTS = 4  # of one shard; a shard that fails this often fails the job
MAX_FRUITLESS_LOSSES = 3  # replicas lost in a row, without a commit between, that are replaced


class SchedulerState:
    """Which shards are open, leased and done, and which replicas live.

    Memory grows with the shards that are done out of order, leased or being retried, not with
    the size of the job.
    """

    def __init__(self, num_shards: int, replicas: int, committed: Collection[int] = ()) -> None:
        self._num_shards = num_shards
        self._wanted_replicas = replicas
        self._committed = set(committed)
        self._fresh: Iterator[int] = iter(range(num_shards))
        self._retries: list[int] = []  # heap: the earliest shard first
        self._attempts: dict[int, int] = {}
        self._leases: dict[str, dict[int, None]] = {}  # live replica -> its shards, oldest first
        self._starting: set[str] = set()
        self._spawned = 0
        self._fruitless_losses = 0
        self._last_loss = ""
        self._stopping = False
        self._finished = False

    @property
    def committed(self) -> int:
        return len(self._committed)

    @property
    def finished(self) -> bool:
        return self._finished

    def leases_of(self, replica_id: str) -> tuple[int, ...]:
        return tuple(self._leases.get(replica_id, ()))

    def handle(self, event: Event) -> list[Command]:
        """Take in one event and answer with what is to be done now."""
        if self._finished:
            return []
        match event:
            case Started():
                open_shards = self._num_shards - len(self._committed)
                commands = [self._spawn() for _ in range(min(self._wanted_replicas, open_shards))]
            case ReplicaReady(replica_id):
                commands = self._replica_ready(replica_id)
            case ReplicaLost():
                commands = self._replica_lost(event)
            case ShardCommitted(replica_id, shard):
                commands = self._shard_committed(replica_id, shard)
            case ShardFailed():
                commands = self._shard_failed(event)
            case StopRequested():
                self._stopping = True
                commands = [AbandonShards()]
        return commands + self._assign() + self._over()

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests and debugging."""
        leased = [shard for shards in self._leases.values() for shard in shards]
        assert len(leased) == len(set(leased)), "a shard is leased twice"
        assert self._committed.isdisjoint(self._retries), "a committed shard waits for a retry"
        assert set(self._retries).isdisjoint(leased), "a leased shard waits for a retry"
        assert all(len(s) <= LEASES_PER_REPLICA for s in self._leases.values()), "too many leases"
        assert self._starting.isdisjoint(self._leases), "a replica is both starting and live"
        assert all(n <= MAX_ATTEMPTS for n in self._attempts.values()), "too many attempts"

    def _spawn(self) -> Command:
        replica_id = f"replica-{self._spawned}"
        self._spawned += 1
        self._starting.add(replica_id)
        return SpawnReplica(replica_id)

    def _replica_ready(self, replica_id: str) -> list[Command]:
        if replica_id in self._starting:
            self._starting.remove(replica_id)
            self._leases[replica_id] = {}
        return []

    def _replica_lost(self, event: ReplicaLost) -> list[Command]:
        if event.replica_id not in self._starting and event.replica_id not in self._leases:
            return []
        self._starting.discard(event.replica_id)
        running, *waiting = self._leases.pop(event.replica_id, {}) or (None,)
        if event.fatal:
            return [self._finish("failed", event.reason)]
        self._fruitless_losses += 1
        self._last_loss = event.reason
        for shard in waiting:
            if shard in self._attempts:
                self._attempts[shard] -= 1  # it had not begun
            self._retry(shard)
        commands = [] if running is None else self._retry_or_give_up(running, event.reason)
        if self._stopping or self._fruitless_losses > MAX_FRUITLESS_LOSSES:
            return commands
        return commands or [self._spawn()]

    def _shard_committed(self, replica_id: str, shard: int) -> list[Command]:
        self._release(replica_id, shard)
        self._committed.add(shard)
        self._attempts.pop(shard, None)
        self._fruitless_losses = 0
        if shard in self._retries:  # an attempt thought lost had committed after all
            self._retries.remove(shard)
            heapq.heapify(self._retries)
        return []

    def _shard_failed(self, event: ShardFailed) -> list[Command]:
        held = self._release(event.replica_id, event.shard)
        if not held or event.shard in self._committed:
            return []
        if event.fatal and not self._stopping:
            return [self._finish("failed", event.reason)]
        return self._retry_or_give_up(event.shard, event.reason)

    def _release(self, replica_id: str, shard: int) -> bool:
        leases = self._leases.get(replica_id, {})
        held = shard in leases
        leases.pop(shard, None)
        return held

    def _retry_or_give_up(self, shard: int, reason: str) -> list[Command]:
        if self._attempts.get(shard, 0) >= MAX_ATTEMPTS and not self._stopping:
            return [
                self._finish(
                    "failed", f"shard {shard} failed {MAX_ATTEMPTS} times; the last: {reason}"
                )
            ]
        self._retry(shard)
        return []

    def _retry(self, shard: int) -> None:
        if shard not in self._committed:
            heapq.heappush(self._retries, shard)

    def _assign(self) -> list[Command]:
        """Lease shards to replicas with room, one each in turn, so that all start early."""
        commands: list[Command] = []
        if self._finished or self._stopping:
            return commands
        for room in range(LEASES_PER_REPLICA):
            for replica_id, shards in self._leases.items():
                if len(shards) > room:
                    continue
                shard = self._next_shard()
                if shard is None:
                    return commands
                shards[shard] = None
                self._attempts[shard] = self._attempts.get(shard, 0) + 1
                commands.append(RunShard(replica_id, shard, self._attempts[shard]))
        return commands

    def _next_shard(self) -> int | None:
        if self._retries:
            return heapq.heappop(self._retries)
        return next((s for s in self._fresh if s not in self._committed), None)

    def _over(self) -> list[Command]:
        if self._finished:
            return []
        if len(self._committed) == self._num_shards:
            return [self._finish("completed")]
        if self._stopping and not any(self._leases.values()):
            return [self._finish("stopped", "stopped on request")]
        if not self._leases and not self._starting:
            return [self._finish("failed", f"no replica is left; the last loss: {self._last_loss}")]
        return []

    def _finish(
        self, state: Literal["completed", "stopped", "failed"], reason: str = ""
    ) -> Command:
        self._finished = True
        return Finish(state, reason)
