"""One seat of the fleet as the coordinator handles it: its process, and the shards it is at."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

from cluster.actors.node_meter import RunMeter
from cluster.actors.seats import Place
from cluster.scheduler.commands import RunLease
from cluster.scheduler.terms import Usage
from cluster.types import Energy

IN_FLIGHT = 2  # the next shard generates while the last is encoded and uploaded


@dataclass
class Work:
    """What is left to begin of a lease."""

    lease: RunLease
    next: int

    @property
    def left(self) -> range:
        return range(self.next, self.lease.stop)


@dataclass
class Seat:
    """A place, and the replica that sits there while it is awake.

    life: how many replicas have sat here; each goes by a name of its own at the node's meter.
    running: by attempt, the lease and shard.
    """

    place: Place
    life: int = 0
    actor: Any = None
    meter: RunMeter | None = None
    model: str = ""
    host_name: str = ""
    hardware: str = ""
    provider: str = ""
    queue: deque[Work] = field(default_factory=deque)
    running: dict[str, tuple[RunLease, int]] = field(default_factory=dict)

    @property
    def replica_id(self) -> str:
        return self.place.replica_id

    @property
    def name(self) -> str:
        """Of the replica that sits here now."""
        return f"{self.replica_id}.{self.life}"

    def next_shard(self) -> tuple[RunLease, int] | None:
        """The next shard to begin, in the order of the leases; None while enough are under way."""
        while self.queue and not self.queue[0].left:
            self.queue.popleft()
        if not self.queue or len(self.running) >= IN_FLIGHT:
            return None
        work = self.queue[0]
        shard, work.next = work.next, work.next + 1
        return work.lease, shard

    def revoke(self, lease_id: int) -> tuple[list[int], list[str]]:
        """Take the lease back: its shards that have not begun, its attempts that have."""
        shards: list[int] = []
        for work in self.queue:
            if work.lease.lease_id == lease_id:
                shards += work.left
                work.next = work.lease.stop
        under_way = [a for a, (lease, _) in self.running.items() if lease.lease_id == lease_id]
        return shards, under_way

    def vacate(self) -> None:
        """The replica is gone."""
        self.actor, self.model = None, ""
        self.queue.clear()
        self.running.clear()


def usage_of(images: int, duration_s: float, energy: Energy) -> Usage:
    return Usage(images, duration_s, energy.energy_mj, energy.quality)
