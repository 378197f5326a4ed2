"""Values that the scheduler works with: operating points, their performance, and job requests.

Times are seconds on the caller's clock; only differences matter. ``model`` is an opaque key of
what a replica loads: a revision at a precision. The job sets the precision, never the scheduler,
because it changes pixels. ``encoding`` is as opaque: a way to write images (``encoding_key``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from cluster.energy import in_joules
from cluster.types import DEFAULT_ENCODING, EnergyQuality
from cluster.types import SetAside as SetAside

Objective = Literal["energy", "deadline", "throughput", "cost", "carbon"]


class DemandKey(NamedTuple):
    """What jobs share whose images cost alike and are wanted alike."""

    model: str
    objective: Objective
    encoding: str = DEFAULT_ENCODING


@dataclass(frozen=True, order=True)
class OperatingPoint:
    """How a device is run. power_cap_w: None keeps the device's own limit."""

    batch_size: int
    power_cap_w: float | None = None


@dataclass(frozen=True)
class Performance:
    """Speed and power of a device at one operating point while it generates.

    power_w: of everything charged to the device, idle power included. low_j, high_j: bounds of the
    energy per image, J, if it is estimated; else None. samples: measurements behind it; 0: none.
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
    """What a device takes while it does not generate.

    idle_w: power with a model loaded. load_s, load_j: time and energy of loading a model.
    price_per_h: of the device, in any currency; only for the objective ``cost``.
    carbon_g_per_kwh: of its electricity, gCO2e; only for the objective ``carbon``.
    """

    idle_w: float
    load_s: float
    load_j: float
    price_per_h: float = 0.0
    carbon_g_per_kwh: float = 0.0


@dataclass(frozen=True)
class Usage:
    """Images, duration and metered energy of some shards. energy_mj: None if unknown."""

    images: int
    duration_s: float
    energy_mj: int | None
    quality: EnergyQuality = "missing"


def joules(usage: Usage | None) -> float | None:
    """The energy in J; None if unknown."""
    return None if usage is None else in_joules(usage.energy_mj)


@dataclass(frozen=True)
class JobRequest:
    """What the scheduler needs to know about a job.

    shards: numbered 0 .. shards - 1, of ``shard_images`` images each, the last maybe fewer.
    priority: higher goes first. deadline_s: on the caller's clock; None: whenever it is cheapest.
    energy_budget_j: limit of the energy of its images and lost attempts: the job pauses before it
    exceeds it.
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
    encoding: str = DEFAULT_ENCODING

    @cached_property
    def demand(self) -> DemandKey:
        """The demand that it is part of."""
        return DemandKey(self.model, self.objective, self.encoding)

    @property
    def shards(self) -> int:
        return -(-self.images // self.shard_images)

    def images_in(self, first: int, stop: int) -> int:
        """Number of images in the shards ``first`` up to, not including, ``stop``."""
        return min(stop * self.shard_images, self.images) - first * self.shard_images
