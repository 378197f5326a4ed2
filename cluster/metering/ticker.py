"""A thread that calls a function at regular intervals until it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Ticker:
    """Calls ``act`` every ``period_s`` seconds on a daemon thread; never if that is None."""

    def __init__(self, act: Callable[[], object], period_s: float | None, name: str) -> None:
        self._act = act
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if period_s is not None:
            self._thread = threading.Thread(
                target=self._run, args=(period_s,), name=name, daemon=True
            )
            self._thread.start()

    def _run(self, period_s: float) -> None:
        while not self._stop.wait(period_s):
            self._act()

    def close(self) -> None:
        """Stop, and wait for a call under way."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
