"""Metered devices, and cumulative readings of their energy. Pure.

Readings are cumulative so that intervals are exact: the energy between any two readings of one
epoch is their difference, and however a window is cut, its parts add up to the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from cluster.types import EnergyQuality

HwType = Literal["gpu", "cpu"]
Zone = Literal["gpu", "module", "package", "dram", "host"]


@dataclass(frozen=True)
class Device:
    """One metered thing. Names follow OpenTelemetry (``hw.*``); zones follow Kepler.

    hw_id: the UUID of a GPU; of a CPU its zone, unique within its host only.
    zone: what the joules include. ``module`` holds a GPU and its CPU (Grace Hopper); ``package``
        is one CPU socket without its memory; ``host`` is the machine but for its GPUs.
    hw_parent: the board of a MIG slice, the package of a memory zone.
    share: of a MIG slice, its part of the board. A reading is always the whole board's.
    """

    hw_id: str
    hw_type: HwType
    hw_name: str
    zone: Zone
    hw_parent: str | None = None
    share: Fraction = Fraction(1)
    driver_version: str | None = None
    power_limit_mw: int | None = None

    @property
    def shared(self) -> bool:
        """Others draw on the same counter."""
        return self.share != 1


@dataclass(frozen=True)
class Reading:
    """Energy of a device up to a moment. None is unknown, never zero.

    at_ns: the host's monotonic clock.
    energy_mj: since the epoch began; low_mj and high_mj bound an estimate likewise.
    method: how the joules are known; of a missing reading, why they are not.
    epoch: readings of different epochs must not be subtracted: the counter was reset, or nothing
        is known of the time between.
    counter_updates: new values seen since the epoch began, a lower bound of the counter's own.
    """

    at_ns: int
    energy_mj: int | None
    quality: EnergyQuality
    method: str
    epoch: int = 0
    low_mj: int | None = None
    high_mj: int | None = None
    counter_updates: int | None = None


def missing(at_ns: int, why: str, epoch: int = 0) -> Reading:
    """A reading of unknown energy. why: the reason."""
    return Reading(at_ns, None, "missing", why, epoch)
