"""Energy of a simulated fleet by bucket, and its power over time: two independent accounts."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

#: The ledger's buckets that a simulated fleet has; ``exploration`` is the part of ``job`` that was
#: spent on finding out what hardware takes.
Bucket = Literal["job", "overhead", "wasted", "idle", "exploration"]
BUCKETS: tuple[Bucket, ...] = ("job", "overhead", "wasted", "idle", "exploration")


class Buckets:
    """Energy by hardware and bucket, J, added up as each period of constant power ends."""

    def __init__(self) -> None:
        self.by_hardware: dict[str, dict[Bucket, float]] = defaultdict(
            lambda: dict.fromkeys(BUCKETS, 0.0)
        )

    def add(self, hardware: str, bucket: Bucket, energy_j: float) -> None:
        self.by_hardware[hardware][bucket] += energy_j

    def total(self, bucket: Bucket) -> float:
        return sum(parts[bucket] for parts in self.by_hardware.values())


@dataclass
class PowerTimeline:
    """The fleet's power, integrated over time as it changes: knows nothing of buckets."""

    bin_s: float
    watts: float = 0.0
    at_s: float = 0.0

    def __post_init__(self) -> None:
        self.bins_j: list[float] = []

    def change(self, watts: float) -> None:
        """Add to the fleet's power from now on, W."""
        self.watts += watts

    def advance(self, now_s: float) -> None:
        """Advance the time at the present power."""
        while self.at_s < now_s:
            at = int(self.at_s / self.bin_s + 1e-9)
            end_s = min(now_s, (at + 1) * self.bin_s)
            self.bins_j.extend([0.0] * (at + 1 - len(self.bins_j)))
            self.bins_j[at] += self.watts * (end_s - self.at_s)
            self.at_s = end_s

    @property
    def energy_j(self) -> float:
        return sum(self.bins_j)

    def watts_by_bin(self) -> list[float]:
        """Mean power of each bin; the last one may not be full."""
        spans = [self.bin_s] * len(self.bins_j)
        if spans:
            spans[-1] = self.at_s - (len(spans) - 1) * self.bin_s
        return [
            energy_j / span_s if span_s > 0 else 0.0
            for energy_j, span_s in zip(self.bins_j, spans, strict=True)
        ]
