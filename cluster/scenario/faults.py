"""Faults of a simulated fleet: their rates, and their times for a seed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from cluster.scheduler.profiles import Profile
from cluster.types import Record

FaultKind = Literal["node", "crash", "silence"]
DAY_S = 86_400.0


class Faults(Record):
    """Rates are per device and day.

    node_losses: the node is gone for repair_s. crashes: the replica dies, which is noticed at once.
    silences: it hangs at idle power and is given up after silent_s. straggler_share: of
    assignments, which take straggler_factor times as long. drift_per_day: the largest share of its
    rate that a kind of hardware loses in a day. profile_error: the largest error of the
    scheduler's profiles in rate and in power, as a share.
    """

    node_losses: NonNegativeFloat = 0.0
    repair_s: PositiveFloat = 1800.0
    crashes: NonNegativeFloat = 0.0
    silences: NonNegativeFloat = 0.0
    silent_s: PositiveFloat = 30.0
    straggler_share: float = Field(default=0.0, ge=0, le=1)
    straggler_factor: float = Field(default=5.0, ge=1)
    drift_per_day: float = Field(default=0.0, ge=0, lt=1)
    profile_error: float = Field(default=0.0, ge=0, lt=1)

    def times(
        self, places: Iterable[str], until_s: float, seed: int
    ) -> Iterator[tuple[float, FaultKind, str]]:
        """When what happens to which node, each with one device; the same for every scheduler."""
        kinds: tuple[tuple[FaultKind, float], ...] = (
            ("node", self.node_losses),
            ("crash", self.crashes),
            ("silence", self.silences),
        )
        for place in places:
            for kind, per_day in kinds:
                rng = random.Random(f"{seed} {place} {kind}")
                at_s = 0.0
                while per_day:
                    at_s += rng.expovariate(per_day / DAY_S)
                    if at_s >= until_s:
                        break
                    yield at_s, kind, place

    def pace(self, hardware: str, now_s: float, seed: int) -> float:
        """The share of its rate that this hardware still has, 0 to 1."""
        if not self.drift_per_day:
            return 1.0
        own = random.Random(f"{seed} {hardware} drift").random() * self.drift_per_day
        return max(0.1, 1.0 - own * now_s / DAY_S)


def believed(truth: Iterable[Profile], error: float, seed: int) -> list[Profile]:
    """The profiles that the scheduler gets: rate and power are wrong by up to ``error`` each.

    The true profiles do not change, so that the same bound holds for every error.
    """
    profiles = []
    for profile in truth:
        rng = random.Random(f"{seed} {profile.hardware} {profile.model} belief")
        speed, draw = (1.0 + rng.uniform(-error, error) for _ in range(2))
        curve = tuple(
            dataclasses.replace(p, images_per_s=p.images_per_s / speed, power_w=p.power_w / draw)
            for p in profile.curve
        )
        profiles.append(dataclasses.replace(profile, curve=curve))
    return profiles
