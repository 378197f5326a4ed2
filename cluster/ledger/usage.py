"""The ledger's vocabulary: who used a device when, and the rows that say what it cost. Pure.

All times are nanoseconds on the host's monotonic clock; all energies are int64 millijoules, and
None where unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.ledger.reading import Device
from cluster.states import EnergyBucket
from cluster.types import EnergyQuality, Precision

Outcome = Literal["won", "lost"]


@dataclass(frozen=True, slots=True)
class Work:
    """What was being done, as far as the energy log wants to know it."""

    job_id: str | None = None
    shard: int | None = None
    model_rev: str | None = None
    steps: int | None = None
    width: int | None = None
    height: int | None = None
    precision: Precision | None = None


NO_WORK = Work()


@dataclass(frozen=True, slots=True)
class Use:
    """Somebody used the device from start_ns to end_ns.

    end_ns: None while the use goes on: announced now, and reported again when it ends.
    bucket: ``job`` (charged to ``wasted`` if its attempt is lost), ``overhead`` (load, compile,
        warm-up, calibration) or ``foreign`` (someone else's process, which gets what our own
        uses leave).
    attempt_id: unique to one attempt at a shard, one loading of a model, one foreign process.
        With start_ns it identifies the use: a second report of it changes nothing.
    images: made during the use. Give them to one device of an attempt only: adding up the rows
        of all devices then counts each image once.
    gpu_fraction: of the device, when several replicas share it.
    """

    start_ns: int
    end_ns: int | None
    bucket: Literal["job", "overhead", "foreign"]
    attempt_id: str
    replica_id: str = ""
    work: Work = NO_WORK
    images: int | None = None
    batch_size: int | None = None
    gpu_fraction: float = 1.0

    def __post_init__(self) -> None:
        if self.end_ns is not None and self.end_ns < self.start_ns:
            raise ValueError(f"use of {self.attempt_id} ends before it starts: {self}")
        if not 0 < self.gpu_fraction <= 1:
            raise ValueError(f"gpu_fraction is {self.gpu_fraction}; it must be in (0, 1]")

    def ends_after(self, at_ns: int) -> bool:
        return self.end_ns is None or self.end_ns > at_ns

    def images_between(self, start_ns: int, end_ns: int) -> int:
        """Images made in that time, as if at an even pace; 0 until the use has ended.

        Over times that follow each other without a hole, it adds up to ``images``.
        """
        return self._images_until(end_ns) - self._images_until(start_ns)

    def _images_until(self, at_ns: int) -> int:
        if not self.images or self.end_ns is None or at_ns <= self.start_ns:
            return 0
        if at_ns >= self.end_ns:
            return self.images
        return self.images * (at_ns - self.start_ns) // (self.end_ns - self.start_ns)


@dataclass(frozen=True, slots=True)
class Interval:
    """What the meter says of the time between two readings.

    energy_mj: None in a gap. outage: the counter could not be read in between, but was still
    the same afterwards: the total is known, not when it was spent.
    """

    device: Device
    epoch: int
    start_ns: int
    end_ns: int
    energy_mj: int | None
    low_mj: int | None
    high_mj: int | None
    quality: EnergyQuality
    method: str
    counter_updates: int | None
    outage: bool = False

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns

    def joined(self, later: Interval) -> Interval:
        """This interval and a later one of the same epoch as one. What either does not know, the
        whole does not."""
        energy_mj = plus(self.energy_mj, later.energy_mj)
        known = energy_mj is not None
        return Interval(
            self.device,
            self.epoch,
            self.start_ns,
            later.end_ns,
            energy_mj,
            plus(self.low_mj, later.low_mj) if known else None,
            plus(self.high_mj, later.high_mj) if known else None,
            self.quality if known else "missing",
            self.method if known or self.energy_mj is None else later.method,
            plus(self.counter_updates, later.counter_updates),
            self.outage or later.outage,
        )


@dataclass(frozen=True, slots=True)
class EnergyRow:
    """One bucket's share of an interval. The rows of an interval add up to it exactly.

    energy_mj: None if unknown. A gap has a ``gap`` row with what is known of it, and a row of
        nothing for every attempt that ran in it, so that a sum over an attempt shows the hole.
    active_mj: the part above the device's idle power; None if that is not known.
    shared: others used the device at the same time, so that the split is by share, not measured.
    images: made in this interval, None if the row has none to count.
    """

    interval: Interval
    bucket: EnergyBucket
    energy_mj: int | None
    active_mj: int | None = None
    low_mj: int | None = None
    high_mj: int | None = None
    shared: bool = False
    attempt_id: str | None = None
    work: Work = NO_WORK
    images: int | None = None
    batch_size: int | None = None


def plus(a: int | None, b: int | None) -> int | None:
    """The sum, which is not known unless both are."""
    return None if a is None or b is None else a + b
