"""Figures for people. Estimates are shown with their bounds, unknown values never as 0."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cluster.types import Energy

UNKNOWN = "unknown"


def joules(value_j: float | None) -> str:
    """``1.23 kJ``, ``4.5 mJ``; ``unknown`` for None."""
    if value_j is None:
        return UNKNOWN
    for limit, divisor, unit in ((1e6, 1e6, "MJ"), (1e3, 1e3, "kJ"), (1.0, 1.0, "J")):
        if abs(value_j) >= limit:
            return f"{value_j / divisor:.3g} {unit}"
    return f"{value_j * 1e3:.3g} mJ"


def bounded(
    value: float | None,
    low: float | None,
    high: float | None,
    *,
    show: Callable[[float | None], str] = joules,
) -> str:
    """The figure, with its bounds when it has them. Of an unknown one the lower bound, if known."""
    if value is None and low is not None:
        return f"at least {show(low)}"
    if low is None or high is None:
        return show(value)
    return f"{show(value)} ({show(low)} to {show(high)})"


def energy_per_image(energy: Energy, images: int) -> str:
    """J/image with bounds and quality, for example ``3.1 mJ (1.5 mJ to 7.6 mJ) estimated``."""
    if energy.energy_mj is None or not images:
        return UNKNOWN
    from cluster.energy import in_joules

    values = (energy.energy_mj, energy.low_mj, energy.high_mj)
    per_image = [in_joules(mj, images) for mj in values]
    return f"{bounded(*per_image)} {quality_words(energy.quality)}"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def quality_words(quality: str) -> str:
    return quality.replace("_", " ")
