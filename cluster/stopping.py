"""That a run is asked to stop, and how it divides the time it has for that. No I/O."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, replace

from cluster.clock import monotonic_s

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_S = 8.0  # Docker kills 10 s after its SIGTERM; Kubernetes and Slurm after 30 s
SHARDS, LOG, REST = 0.45, 0.7, 0.8  # shares of the time; what follows is the end of Ray


class Stopped(Exception):
    """The run was asked to stop before anything of it had begun."""


@dataclass
class Stop:
    """The requests to stop that have come.

    within_s: how long the stop may take from the first request, whatever is under way. first: its
    signal. times: how many have come; from the second on the shards in flight are given up.
    """

    within_s: float = STOP_S
    first: signal.Signals | None = None
    times: int = 0
    asked_s: float = math.inf

    def ask(self, number: int) -> bool:
        """Note a request; whether it is the first. Safe to call in a signal handler."""
        self.times += 1
        if self.times > 1:
            return False
        self.first, self.asked_s = signal.Signals(number), monotonic_s()
        return True

    @property
    def left_s(self) -> float:
        """Seconds until the process is to be gone; infinite while nobody has asked."""
        return self.asked_s + self.within_s - monotonic_s()


@dataclass(frozen=True)
class Grace:
    """Until when each part of a stop may take, on this process's monotonic clock.

    shards_s: shards that would be done by then are finished and committed, others given up.
    log_s: then the energy log is in the store. rest_s: then the decisions and profiles are.
    """

    shards_s: float
    log_s: float
    rest_s: float

    @classmethod
    def of(cls, within_s: float) -> Grace:
        """That of a stop which may take so long from now."""
        now_s = monotonic_s()
        return cls(*(now_s + share * within_s for share in (SHARDS, LOG, REST)))

    def hurried(self) -> Grace:
        """The same without waiting for any shard."""
        return replace(self, shards_s=monotonic_s())


NO_HURRY = Grace(math.inf, math.inf, math.inf)


def left_s(until_s: float, limit_s: float = math.inf) -> float:
    """Seconds until then: at most the limit, and never none, so that what is quick is done."""
    return min(limit_s, max(0.1, until_s - monotonic_s()))
