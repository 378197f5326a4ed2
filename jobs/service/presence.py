"""Which servers are alive, for a reader that does not run jobs itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta

from cluster.clock import monotonic_s, utc_now
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import SILENCE_S, Beat, Liveness, read_beats

KEPT_S = 1.0  # between two looks at the store
LOOK_S = 0.5


class Presence:
    """What a process knows of the servers. Thread-safe.

    A process that lives on sees counts stand still. One that has only just begun cannot: it takes
    a second look at a sign of life that *may* be old, by what its writer's clock said, and goes by
    whether the count has moved meanwhile. So a wrong clock costs time, and decides nothing.

    patience_s: how long such a second look may take; 0: there is none.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        patience_s: float = 0.0,
        now_s: Callable[[], float] = monotonic_s,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._store = store
        self._patience_s = patience_s
        self._now_s, self._sleep = now_s, sleep
        self._liveness = Liveness(SILENCE_S)
        self._beats: dict[str, Beat] = {}
        self._still: set[str] = set()  # found dead by a second look
        self._read_s: float | None = None
        self._lock = threading.Lock()

    def alive(self) -> frozenset[str]:
        """The servers that are alive, as far as is known."""
        with self._lock:
            now_s = self._now_s()
            if self._read_s is None or now_s - self._read_s >= KEPT_S:
                first = self._read_s is None
                self._read()
                if first and self._patience_s:
                    self._look_again()
                now_s = self._read_s = self._now_s()
            found = (name for name in self._beats if self._liveness.is_alive(name, now_s))
            return frozenset(set(found) - self._still)

    def beat(self, server_id: str) -> Beat | None:
        """The last sign of life as last read; None of a server that has signed off."""
        with self._lock:
            return self._beats.get(server_id)

    def _read(self) -> None:
        beats = read_beats(self._store)
        self._still = {
            name
            for name in self._still
            if name in beats and beats[name].count == self._beats[name].count
        }
        self._beats = beats
        self._liveness.see(beats, self._now_s())

    def _look_again(self) -> None:
        oldest = utc_now() - timedelta(seconds=SILENCE_S)
        doubtful = {name: beat.count for name, beat in self._beats.items() if beat.at < oldest}
        until_s = self._now_s() + self._patience_s
        while doubtful and self._now_s() < until_s:
            self._sleep(LOOK_S)
            self._read()
            doubtful = {
                name: count
                for name, count in doubtful.items()
                if name in self._beats and self._beats[name].count == count
            }
        self._still |= doubtful.keys()
