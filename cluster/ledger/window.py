"""Windows: what is charged as one. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cluster.energy import MIN_WINDOW_S
from cluster.ledger.split import Cover, Key, Part, divide
from cluster.ledger.usage import Interval

MIN_WINDOW_NS = round(MIN_WINDOW_S * 1e9)


@dataclass
class Window:
    """Neighbouring intervals, charged as one.

    parts: of each share in ``cover``, once divided. None in a gap: nobody is charged for what is
    not known, or not known well enough.
    """

    interval: Interval
    cover: Cover
    parts: dict[Key, Part] | None = None

    def alike(self, later: Window) -> bool:
        """Whether charging both as one loses nothing.

        It does not while the same uses go on, and in a gap. While the window is short it is even
        better so, if the uses are of the same kind: attempts at shards of one job in turn.
        """
        here, there = self.interval, later.interval
        if (here.epoch, here.energy_mj is None) != (there.epoch, there.energy_mj is None):
            return False
        if here.energy_mj is None:
            return True
        if here.outage or there.outage:
            return False
        if self.cover.rates is not None and self.cover.rates == later.cover.rates:
            return True
        return here.duration_ns < MIN_WINDOW_NS and self.cover.kinds == later.cover.kinds

    def joined(self, later: Window) -> Window:
        return Window(self.interval.joined(later.interval), self.cover.joined(later.cover))

    def divide(self) -> None:
        """Divide what is known. After an outage that is so if the same uses lasted all through;
        else nobody knows how much was spent during which."""
        guess = self.interval.outage and self.cover.rates is None
        if self.interval.energy_mj is not None and not guess:
            weights = self.cover.weights
            parts = divide(self.interval, list(weights.values()))
            self.parts = dict(zip(weights, parts, strict=True))

    def shares(self) -> Iterator[tuple[Key, Part | None]]:
        """Every share and its part; None where that is not known."""
        for key in self.cover.weights:
            yield key, None if self.parts is None else self.parts[key]

    def device_ns(self, key: Key) -> int:
        """A share in time: that of the whole device that it amounts to."""
        whole = sum(self.cover.weights.values())
        return self.interval.duration_ns * self.cover.weights[key] // whole
