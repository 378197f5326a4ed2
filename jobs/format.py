"""Figures for people. Estimates are shown with their bounds, unknown values never as 0."""

from __future__ import annotations

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


def bounded(value_j: float | None, low_j: float | None, high_j: float | None) -> str:
    """The figure, with its bounds when it has them."""
    text = joules(value_j)
    return (
        text if low_j is None or high_j is None else f"{text} ({joules(low_j)} to {joules(high_j)})"
    )


def energy_per_image(energy: Energy, images: int) -> str:
    """J/image with bounds and quality, for example ``3.1 mJ (1.5 mJ to 7.6 mJ) estimated``."""
    if energy.energy_mj is None or not images:
        return UNKNOWN
    values = (energy.energy_mj, energy.low_mj, energy.high_mj)
    per_image = [None if mj is None else mj / 1e3 / images for mj in values]
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
