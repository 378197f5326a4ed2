"""What was asked to be given up, and by when."""

from __future__ import annotations

import math
import threading
from collections.abc import Collection

from cluster.clock import monotonic_s


class Abandoned(Exception):
    """The attempt was given up on request; it commits nothing."""


class GivenUp:
    """The attempts that are to end, each at once or when it needs longer than it was left."""

    def __init__(self) -> None:
        self._by_s: dict[str, float] = {}
        self._all_by_s = math.inf
        self._asked = threading.Condition()

    def ask(self, attempt_ids: Collection[str] | None, within_s: float) -> None:
        """Give these attempts up, or all, unless they are done within so many seconds."""
        by_s = monotonic_s() + within_s
        with self._asked:
            if attempt_ids is None:
                self._all_by_s = by_s
            else:
                self._by_s.update(dict.fromkeys(attempt_ids, by_s))
            self._asked.notify_all()

    def check(self, attempt_id: str, needs_s: float = 0.0) -> None:
        """Raise Abandoned if the attempt, which needs so much longer, is given up."""
        if self._includes(attempt_id, needs_s):
            raise Abandoned

    def wait(self, attempt_id: str, seconds: float) -> bool:
        """Whether the attempt is given up, now or within so many seconds, which this waits."""
        with self._asked:
            return self._asked.wait_for(lambda: self._includes(attempt_id), seconds)

    def _includes(self, attempt_id: str, needs_s: float = 0.0) -> bool:
        by_s = min(self._all_by_s, self._by_s.get(attempt_id, math.inf))
        return by_s < math.inf and monotonic_s() + needs_s >= by_s
