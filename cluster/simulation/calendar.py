"""The virtual clock and its future events."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Calendar:
    """Future events by time. ``now_s`` is the virtual clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Add an event at this time. Events of equal time keep their order."""
        heapq.heappush(self._heap, (at_s, next(self._order), action))

    def next_s(self) -> float | None:
        """Time of the next event; None if there is none."""
        return self._heap[0][0] if self._heap else None

    def pop(self) -> Callable[[], None]:
        """Remove and return the next event."""
        return heapq.heappop(self._heap)[2]
