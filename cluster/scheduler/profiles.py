"""What is believed of each (hardware, model, operating point), and how work changes it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cluster.scheduler.terms import OperatingPoint, Performance, Standing, Usage


@dataclass(frozen=True)
class Profile:
    """One kind of hardware with one model: what it costs to have ready, and to run."""

    hardware: str
    model: str
    standing: Standing
    curve: tuple[Performance, ...]


class ProfileBook:
    """The beliefs the scheduler works with. ``observe`` is the only way they change."""

    def __init__(self, profiles: Iterable[Profile]) -> None:
        self._profiles = {(p.hardware, p.model): p for p in profiles}

    def profile(self, hardware: str, model: str) -> Profile | None:
        """What is believed of this hardware; None if nothing is."""
        return self._profiles.get((hardware, model))

    def observe(self, hardware: str, model: str, point: OperatingPoint, usage: Usage) -> None:
        """Learn from finished work."""
