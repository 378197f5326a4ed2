"""How often a counter is updated, found by watching it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from itertools import pairwise

from cluster.metering.source import Source

WATCH_S = 1.0
LOOK_EVERY_S = 0.001


def update_period_s(
    source: Source, watch_s: float = WATCH_S, wait: Callable[[float], None] = time.sleep
) -> float | None:
    """Seconds between updates of the source's counter, the median over ``watch_s`` seconds.

    None if it is no counter, or did not change twice. wait: passes seconds on the source's clock.
    """
    first = last = source.read()
    changes_ns: list[int] = []
    while last.quality == "measured_counter" and last.at_ns - first.at_ns < watch_s * 1e9:
        wait(LOOK_EVERY_S)
        reading = source.read()
        if reading.counter_updates != last.counter_updates:
            changes_ns.append(reading.at_ns)
        last = reading
    if last.quality != "measured_counter" or len(changes_ns) < 2:
        return None
    return statistics.median(b - a for a, b in pairwise(changes_ns)) / 1e9
