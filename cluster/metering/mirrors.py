"""Whether two counters are one, shown twice. Pure.

On some processors every die shows the counter of the whole socket. Such counters differ by a
constant, whatever the socket draws; independent ones, however alike their loads, drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cluster.ledger.reading import Reading

LEAST_S = 0.25
TICK_S = 0.003  # RAPL counters are updated each millisecond
AGREEMENT = 0.005  # of the energy of the whole watch: independent counters do not agree so well
ROUGHLY = 0.02  # enough where their names say that they are dies of one socket
ROUNDING_MJ = 2
USUAL = 0.9  # quantile: beyond it are the pauses of this process and of whoever shows the counters
LOOK_AGAIN = 1.1  # how much longer the watch must be by then


@dataclass
class Pair:
    """Two counters, read in turn: ``one``, ``other``, ``one``, …

    If they are one counter, what ``other`` says lies between what ``one`` says before and after,
    but for a constant. Each turn leaves a range for that constant; if nearly all ranges have
    something in common, they may be one.
    """

    _first: tuple[int, int] | None = None  # (ns, mJ) of one
    _lows: list[int] = field(default_factory=list)
    _highs: list[int] = field(default_factory=list)
    _steps_mj: list[int] = field(default_factory=list)
    _watched_s: float = 0.0
    _spent_mj: int = 0
    _next_look_s: float = LEAST_S

    def seen(self, before: Reading, other: Reading, after: Reading) -> None:
        """Read both counters once. Failed readings are ignored."""
        if before.energy_mj is None or other.energy_mj is None or after.energy_mj is None:
            return
        if self._first is None:
            self._first = before.at_ns, before.energy_mj
        self._lows.append(before.energy_mj - other.energy_mj)
        self._highs.append(other.energy_mj - after.energy_mj)
        if step_mj := after.energy_mj - before.energy_mj:
            self._steps_mj.append(step_mj)
        self._watched_s = (after.at_ns - self._first[0]) / 1e9
        self._spent_mj = after.energy_mj - self._first[1]

    def verdict(self, watch_s: float) -> Literal["one", "two"] | None:
        """Whether they are one or two counters; None: not known yet.

        watch_s: how long two counters that agree must be watched.
        """
        if self._watched_s < self._next_look_s or not self._steps_mj:
            return None
        self._next_look_s = LOOK_AGAIN * self._watched_s
        agreement = self.agreement()
        if agreement is None:
            return "two"
        return "one" if self._watched_s >= watch_s and agreement <= AGREEMENT else None

    def agreement(self) -> float | None:
        """To within which part of their energy they agree; None if they do not."""
        if not self._steps_mj:
            return float("inf")
        tick_mj = TICK_S * self._spent_mj / self._watched_s
        tolerance_mj = max(_usual(self._steps_mj), tick_mj) + ROUNDING_MJ
        if _usual(self._lows) + _usual(self._highs) > tolerance_mj:
            return None
        return tolerance_mj / self._spent_mj


def _usual(values: list[int]) -> int:
    """The value that nearly all are not above."""
    return sorted(values)[int(USUAL * (len(values) - 1))]
