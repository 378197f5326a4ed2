"""How busy the stages of the path from a device to its store were."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Stage = Literal["device", "encode", "upload"]
STAGES: tuple[Stage, ...] = get_args(Stage)


@dataclass(frozen=True)
class StageTimes:
    """Seconds, in all and busy by stage. A stage of several threads is busy by their mean, so that
    busy / window is its share, of 0 to 1."""

    window_s: float = 0.0
    device_s: float = 0.0
    encode_s: float = 0.0
    upload_s: float = 0.0

    @staticmethod
    def of(shares: Mapping[Stage, float] | None) -> StageTimes:
        """Those of a window of a second with these shares; without a window for None."""
        if shares is None:
            return StageTimes()
        return StageTimes(1.0, *(shares.get(stage, 0.0) for stage in STAGES))

    def __add__(self, other: StageTimes) -> StageTimes:
        return StageTimes(
            self.window_s + other.window_s,
            self.device_s + other.device_s,
            self.encode_s + other.encode_s,
            self.upload_s + other.upload_s,
        )

    @property
    def shares(self) -> dict[Stage, float] | None:
        """Of its window, how much each stage was busy; None before there is any."""
        if self.window_s <= 0:
            return None
        busy_s = (self.device_s, self.encode_s, self.upload_s)
        return {stage: min(1.0, s / self.window_s) for stage, s in zip(STAGES, busy_s, strict=True)}

    @property
    def bottleneck(self) -> Stage | None:
        """The stage that was busy most: the others wait for it."""
        if (shares := self.shares) is None:
            return None
        busiest: Stage = max(STAGES, key=lambda stage: shares[stage])
        return busiest
