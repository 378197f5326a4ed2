"""One simulated device: its state, its power, and its queue of assignments."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

from cluster.scheduler.commands import RunAssignment
from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost

Phase = Literal["parked", "waking", "awake", "parking", "silent"]
NOTHING = StandbyCost(idle_w=0.0, load_s=0.0, load_j=0.0)


class Truth:
    """The true performance of devices, which the scheduler's profiles only approximate."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._profiles = {(p.hardware, p.model): p for p in profiles}
        self._points = {
            (*key, performance.point): performance
            for key, profile in self._profiles.items()
            for performance in profile.curve
        }

    def profile(self, hardware: str, model: str) -> Profile | None:
        return self._profiles.get((hardware, model))

    def performance(self, hardware: str, model: str, point: OperatingPoint) -> Performance | None:
        return self._points.get((hardware, model, point))


@dataclass
class Running:
    """The assignment that a device is working on."""

    assignment: RunAssignment
    shard_images: int
    images: int
    started_s: float
    images_per_s: float

    def made_shards(self, now_s: float) -> int:
        """Whole shards made so far."""
        made = (now_s - self.started_s) * self.images_per_s * (1 + 1e-9)
        shards = self.assignment.stop - self.assignment.first
        return shards if made >= self.images else min(int(made / self.shard_images), shards - 1)


@dataclass
class Device:
    """A device with room for one replica. epoch: changes whenever pending timers are void."""

    replica_id: str
    node_id: str
    hardware: str
    joined_s: float
    phase: Phase = "parked"
    model: str = ""
    standby: StandbyCost = NOTHING
    epoch: int = 0
    watts: float = 0.0
    since_s: float = 0.0
    queue: deque[RunAssignment] = field(default_factory=deque)
    running: Running | None = None

    def spend(self, now_s: float) -> float:
        """Joules since the last call."""
        energy_j = self.watts * (now_s - self.since_s)
        self.since_s = now_s
        return energy_j
