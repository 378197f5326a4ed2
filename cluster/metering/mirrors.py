"""Whether two counters are one, shown twice. Pure.

On some processors every die shows the counter of the whole socket. Such counters differ by a
constant, whatever the socket draws; independent ones, however alike their loads, drift apart.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cluster.metering.reading import Reading

LEAST_S = 0.05
TICK_S = 0.003  # RAPL counters are updated each millisecond
AGREEMENT = 0.005  # of the energy of the whole watch: independent counters do not agree so well
ROUNDING_MJ = 2
USUAL_STEP = 0.9  # quantile of a counter's steps: longer ones are the pauses of this process


@dataclass
class Pair:
    """Two counters, read in turn: ``one``, ``other``, ``one``, …

    If they are one counter, what ``other`` says lies between what ``one`` says before and after,
    but for a constant. Each turn leaves a range for that constant; if the ranges have something in
    common, they may be one.
    """

    _first: tuple[int, int] | None = None  # (ns, mJ) of one
    _low: float = float("-inf")
    _high: float = float("inf")
    _steps_mj: list[int] = field(default_factory=list)
    _watched_s: float = 0.0
    _spent_mj: int = 0

    def seen(self, before: Reading, other: Reading, after: Reading) -> None:
        """Take a turn. What could not be read tells nothing."""
        if before.energy_mj is None or other.energy_mj is None or after.energy_mj is None:
            return
        if self._first is None:
            self._first = before.at_ns, before.energy_mj
        self._low = max(self._low, before.energy_mj - other.energy_mj)
        self._high = min(self._high, after.energy_mj - other.energy_mj)
        if step_mj := after.energy_mj - before.energy_mj:
            self._steps_mj.append(step_mj)
        self._watched_s = (after.at_ns - self._first[0]) / 1e9
        self._spent_mj = after.energy_mj - self._first[1]

    def verdict(self, watch_s: float) -> Literal["one", "two"] | None:
        """Whether they are one or two counters; None: that cannot be told yet.

        watch_s: how long two counters that agree must be watched.
        """
        if self._watched_s < LEAST_S or not self._steps_mj:
            return None
        steps_mj = sorted(self._steps_mj)
        usual_mj = steps_mj[int(USUAL_STEP * (len(steps_mj) - 1))]
        tick_mj = TICK_S * self._spent_mj / self._watched_s
        tolerance_mj = max(usual_mj, tick_mj) + ROUNDING_MJ
        if self._low - self._high > tolerance_mj:
            return "two"
        if self._watched_s >= watch_s and tolerance_mj <= AGREEMENT * self._spent_mj:
            return "one"
        return None
