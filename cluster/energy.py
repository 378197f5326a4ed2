"""Sums of energies in which a missing part is never taken for zero. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.types import MISSING_ENERGY, QUALITIES, Energy

MIN_WINDOW_S = 2.0
"""Counters move every 20 to 100 ms: a shorter window says little (docs/explanation/energy.md)."""

ZERO_ENERGY = Energy(energy_mj=0, quality="measured_counter", method="none")


def in_joules(energy_mj: int | None, over: int = 1) -> float | None:
    """Joules of so many millijoules, or of each of ``over`` parts; None if either is unknown."""
    return None if energy_mj is None or not over else energy_mj / 1e3 / over


def sum_energy(parts: Iterable[Energy]) -> Energy:
    """The energy of all parts. Its quality is the worst of theirs.

    One missing part makes the total missing (see ``shares`` for the known part). The sum of no
    parts is ``ZERO_ENERGY``, which changes no sum, so sums may be built up step by step.
    ``low_mj`` and ``high_mj`` appear when a part is an estimate; a measured part adds its value
    to both, and an estimate without bounds leaves the total without them.
    """
    parts = [part for part in parts if part != ZERO_ENERGY]
    values = [p.energy_mj for p in parts if p.energy_mj is not None and p.quality != "missing"]
    if not parts:
        return ZERO_ENERGY
    if len(values) < len(parts):
        return MISSING_ENERGY
    quality = max((p.quality for p in parts), key=QUALITIES.index)
    bounded = quality == "estimated"
    return Energy(
        energy_mj=sum(values),
        low_mj=_sum_known(_bound(p, p.low_mj) for p in parts) if bounded else None,
        high_mj=_sum_known(_bound(p, p.high_mj) for p in parts) if bounded else None,
        quality=quality,
        method="+".join(sorted({m for p in parts for m in p.method.split("+")})),
    )


@dataclass(frozen=True)
class EnergyShares:
    """A total by how its parts are known. None: there is no such part."""

    measured_mj: int | None
    estimated_mj: int | None
    parts: int
    missing_parts: int

    @property
    def known_mj(self) -> int | None:
        """Measured and estimated together; a lower bound of the total if parts are missing."""
        known = [v for v in (self.measured_mj, self.estimated_mj) if v is not None]
        return sum(known) if known else None


def shares(parts: Iterable[Energy]) -> EnergyShares:
    """How much of a total is measured, estimated and missing."""
    measured: list[int] = []
    estimated: list[int] = []
    count = 0
    for part in parts:
        count += 1
        if part.energy_mj is not None and part.quality != "missing":
            (estimated if part.quality == "estimated" else measured).append(part.energy_mj)
    return EnergyShares(
        measured_mj=sum(measured) if measured else None,
        estimated_mj=sum(estimated) if estimated else None,
        parts=count,
        missing_parts=count - len(measured) - len(estimated),
    )


def _bound(part: Energy, bound_mj: int | None) -> int | None:
    return bound_mj if part.quality == "estimated" else part.energy_mj


def _sum_known(values: Iterable[int | None]) -> int | None:
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total
