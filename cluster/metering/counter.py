"""Turning the raw values of an energy counter into cumulative readings. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cluster.ledger.reading import Reading, missing

MAX_POWER_W = 1_000  # no CPU zone draws more: what implies more is a reset, not a wrap
SLACK_NS = 1_000_000_000  # a counter's values are older than the moment they are read


@dataclass
class CounterTrack:
    """Follows one counter through updates, wraps, resets and failures.

    A counter that goes backwards has been reset, unless it wraps at ``wrap_at`` and the power
    that a wrap implies is possible: then the range is added, once. A reset opens an epoch, for
    nobody knows what was lost. A failed read does not: the counter went on counting.

    units_per_mj: of the raw values, 1 for millijoules, 1000 for microjoules.
    """

    method: str
    units_per_mj: int = 1
    wrap_at: int | None = None
    quality: Literal["measured_counter", "measured_power"] = "measured_counter"
    epoch: int = 0
    _total: int = field(default=0, init=False)
    _updates: int = field(default=0, init=False)
    _last: tuple[int, int] | None = field(default=None, init=False)

    def read(self, at_ns: int, value: int) -> Reading:
        """The reading of a raw value."""
        if self._last is not None:
            last_ns, last = self._last
            step = self._step(value - last, at_ns - last_ns)
            if step is None:
                self.epoch, self._total, self._updates = self.epoch + 1, 0, 0
            else:
                self._total += step
                self._updates += step > 0
        self._last = (at_ns, value)
        return Reading(
            at_ns,
            self._total // self.units_per_mj,
            self.quality,
            self.method,
            self.epoch,
            counter_updates=self._updates,
        )

    def failed(self, at_ns: int, why: str) -> Reading:
        """The reading when there is no value."""
        return missing(at_ns, why, self.epoch)

    def _step(self, difference: int, elapsed_ns: int) -> int | None:
        """Raw units since the last value; None: unknown."""
        if self.wrap_at is None:
            return difference if difference >= 0 else None
        possible = self.units_per_mj * MAX_POWER_W * (elapsed_ns + SLACK_NS) // 1_000_000
        if possible >= self.wrap_at:  # so long that a whole turn may have gone unseen
            return None
        if difference < 0:
            difference += self.wrap_at
            return difference if 0 <= difference <= possible else None
        return difference
