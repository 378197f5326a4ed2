"""What lies between a device and its store: encoders, uploads, and the memory they share.

    device -> tiles -> encoders (threads) -> a file a shard -> uploads (threads) -> commits

Stages run at once, each on shards of its own. The budget bounds what is under way between them: a
stage that is too slow stops the device, and never fills the memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from cluster.clock import monotonic_s
from cluster.stage_times import STAGES, Stage, StageTimes
from cluster.storage.object_store import PUTS_IN_FLIGHT

BUDGET_BYTES = 256 * 2**20
_LOOK_S = 0.1


class Budget:
    """Bytes under way that are not to exceed a limit.

    One holding alone may exceed it: a shard that is larger than the limit still gets through, one
    at a time.
    """

    def __init__(self, limit_bytes: int = BUDGET_BYTES) -> None:
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.peak_bytes = 0
        self._changed = threading.Condition()

    def holding(self) -> Holding:
        """A share of the budget, empty so far."""
        return Holding(self)

    def _add(self, holding: Holding, size_bytes: int) -> None:
        """Under the lock."""
        holding.size_bytes += size_bytes
        self.used_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.used_bytes)
        self._changed.notify_all()


class Holding:
    """What one shard holds of a budget, until it is released. Threads may share it."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._released = False
        self.size_bytes = 0

    def take(self, size_bytes: int, look: Callable[[], None] = lambda: None) -> None:
        """Hold so much more, once there is room for it.

        look: called now and then while waiting; what it raises ends the wait.
        """
        budget = self._budget
        with budget._changed:
            while (
                budget.used_bytes + size_bytes > budget.limit_bytes
                and budget.used_bytes > self.size_bytes
            ):
                look()
                budget._changed.wait(_LOOK_S)
            budget._add(self, size_bytes)

    def replace(self, size_bytes: int, by_bytes: int) -> None:
        """Part of it has become something of another size, at once."""
        with self._budget._changed:
            if not self._released:  # work that was given up may still be under way
                self._budget._add(self, by_bytes - size_bytes)

    def release(self) -> None:
        """Hold nothing any more, whatever happens to the rest of the work."""
        with self._budget._changed:
            self._budget._add(self, -self.size_bytes)
            self._released = True


class StageClock:
    """How long each stage was busy, and since when. Threads may share it."""

    def __init__(self, encoders: int = 1, uploads: int = 1) -> None:
        self._threads: dict[Stage, int] = {"device": 1, "encode": encoders, "upload": uploads}
        self._busy_s = dict.fromkeys(STAGES, 0.0)
        self._first_s: float | None = None
        self._lock = threading.Lock()

    @contextmanager
    def busy(self, stage: Stage) -> Iterator[None]:
        """The stage works for as long as this is open; it may be open several times at once."""
        began_s = monotonic_s()
        if self._first_s is None:
            self._first_s = began_s
        try:
            yield
        finally:
            with self._lock:
                self._busy_s[stage] += monotonic_s() - began_s

    def times(self) -> StageTimes:
        """Until now, since the first stage was first busy."""
        if self._first_s is None:
            return StageTimes()
        busy_s = [self._busy_s[stage] / self._threads[stage] for stage in STAGES]
        return StageTimes(monotonic_s() - self._first_s, *busy_s)


class Lane:
    """What the runners of one device share: the lock on the device, and the stages behind it.

    encoders, uploads: threads of each. budget_bytes: of pixels and files under way.
    """

    def __init__(
        self, encoders: int = 1, uploads: int = PUTS_IN_FLIGHT, budget_bytes: int = BUDGET_BYTES
    ) -> None:
        self.turn = threading.Lock()
        self.encoders, self.uploads = encoders, uploads
        self.encoding = ThreadPoolExecutor(encoders, thread_name_prefix="encode")
        self.uploading = ThreadPoolExecutor(uploads, thread_name_prefix="upload")
        self.budget = Budget(budget_bytes)

    def close(self) -> None:
        """Stop the stages."""
        self.encoding.shutdown(cancel_futures=True)
        self.uploading.shutdown(cancel_futures=True)
