"""What goes wrong in a simulated fleet: rates, and the seeded times at which it does."""

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

    node_losses: the node goes and is back after repair_s. crashes: the replica dies and is seen
    to. silences: it hangs, drawing idle power, and is given up after silent_s. straggler_share:
    of assignments that run straggler_factor times as long. drift_per_day: by how much of its rate a
    kind of hardware slows down in a day, each at its own pace up to this.
    profile_error: beliefs are off the truth by up to this share, in rate and in power.
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
        """The share of its rate that this hardware still has."""
        if not self.drift_per_day:
            return 1.0
        own = random.Random(f"{seed} {hardware} drift").random() * self.drift_per_day
        return max(0.1, 1.0 - own * now_s / DAY_S)


def believed(truth: Iterable[Profile], error: float, seed: int) -> list[Profile]:
    """What a scheduler takes these profiles for: rate and power are off by up to ``error`` each.

    The truth stays as it is, so that the same bound holds for every error.
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
