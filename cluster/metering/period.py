"""How often a counter is updated, found by watching it."""

from __future__ import annotations

import statistics
import time
from itertools import pairwise

from cluster.metering.reading import Source

WATCH_S = 1.0
LOOK_EVERY_S = 0.001


def update_period_s(source: Source, watch_s: float = WATCH_S) -> float | None:
    """Seconds between updates of the source's counter, the median over ``watch_s`` seconds.

    None if it is no counter, or did not change twice.
    """
    changes_ns: list[int] = []
    updates: int | None = None
    end_s = time.monotonic() + watch_s
    while time.monotonic() < end_s:
        reading = source.read()
        if reading.quality != "measured_counter":
            return None
        if updates is not None and reading.counter_updates != updates:
            changes_ns.append(reading.at_ns)
        updates = reading.counter_updates
        time.sleep(LOOK_EVERY_S)
    if len(changes_ns) < 2:
        return None
    return statistics.median(b - a for a, b in pairwise(changes_ns)) / 1e9
