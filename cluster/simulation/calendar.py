"""The virtual clock, and what will happen when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from itertools import count


class Calendar:
    """What will happen when. ``now_s`` is the virtual clock."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()

    def at(self, at_s: float, action: Callable[[], None]) -> None:
        """Do this then; what is put in first comes first at equal times."""
        heapq.heappush(self._heap, (at_s, next(self._order), action))

    def next_s(self) -> float | None:
        """When the next thing happens; None if nothing ever will."""
        return self._heap[0][0] if self._heap else None

    def pop(self) -> Callable[[], None]:
        """The next thing to happen."""
        return heapq.heappop(self._heap)[2]
