"""What the scheduler reasons about: operating points, beliefs about them, and the terms of jobs.

Seconds are those of the caller's clock, of which only differences matter. ``model`` is an opaque
key for what a replica loads: a revision at a precision. Precision is the job's, never the
scheduler's to choose: it changes pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.energy import in_joules
from cluster.types import EnergyQuality
from cluster.types import SetAside as SetAside

Objective = Literal["energy", "deadline", "throughput", "cost", "carbon"]


@dataclass(frozen=True, order=True)
class OperatingPoint:
    """How a device is run. power_cap_w: None leaves the device's own limit."""

    batch_size: int
    power_cap_w: float | None = None


@dataclass(frozen=True)
class Performance:
    """What a device is believed to do at one operating point while it generates.

    power_w: of all that is accounted to it, idle power included. low_j, high_j: bounds on the
    energy per image where it is an estimate, else None.
    """

    point: OperatingPoint
    images_per_s: float
    power_w: float
    quality: EnergyQuality = "estimated"
    low_j: float | None = None
    high_j: float | None = None
    samples: int = 0

    @property
    def energy_per_image_j(self) -> float:
        return self.power_w / self.images_per_s


@dataclass(frozen=True)
class StandbyCost:
    """What it takes to have a device ready: warm but idle, and to load a model on it.

    price_per_h: of the device, in any currency; carbon_g_per_kwh: of its electricity. Used by the
    objectives of these names only.
    """

    idle_w: float
    load_s: float
    load_j: float
    price_per_h: float = 0.0
    carbon_g_per_kwh: float = 0.0


@dataclass(frozen=True)
class Usage:
    """What some shards took, as their replica's meter has it. energy_mj: None where unknown."""

    images: int
    duration_s: float
    energy_mj: int | None
    quality: EnergyQuality = "missing"


def joules(usage: Usage | None) -> float | None:
    """Its energy; None where unknown."""
    return None if usage is None else in_joules(usage.energy_mj)


@dataclass(frozen=True)
class JobRequest:
    """A job as far as scheduling goes.

    shards: numbered 0 .. shards - 1, of shard_images images each, the last one maybe fewer.
    priority: higher goes first. deadline_s: on the caller's clock; None is whenever it is cheap.
    energy_budget_j: of the job's images and lost attempts; the job pauses before it exceeds it.
    """

    job_id: str
    model: str
    images: int
    shard_images: int
    owner: str = ""
    priority: int = 0
    deadline_s: float | None = None
    objective: Objective = "energy"
    energy_budget_j: float | None = None

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard_images)

    def images_in(self, first: int, stop: int) -> int:
        """Images of the shards ``first`` up to, not including, ``stop``."""
        return min(stop * self.shard_images, self.images) - first * self.shard_images
