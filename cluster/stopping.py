"""Requests to stop a run, and how the time for the stop is divided. No I/O."""

from __future__ import annotations

import math
import signal
from dataclasses import dataclass, replace

from cluster.clock import monotonic_s

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STOP_S = 8.0  # Docker kills 10 s after its SIGTERM; Kubernetes and Slurm after 30 s
SHARDS, LOG, REST = 0.45, 0.7, 0.8  # shares of the time; what follows is the end of Ray


class Stopped(Exception):
    """The run was asked to stop before it had begun."""


@dataclass
class Stop:
    """The requests to stop so far.

    within_s: how long the stop may take from the first request, whatever is under way. first: its
    signal. times: how many have come; from the second on the shards in flight are given up.
    """

    within_s: float = STOP_S
    first: signal.Signals | None = None
    times: int = 0
    asked_s: float = math.inf

    def ask(self, number: int) -> bool:
        """Note a request; True if it is the first. Safe to call in a signal handler."""
        self.times += 1
        if self.times > 1:
            return False
        self.first, self.asked_s = signal.Signals(number), monotonic_s()
        return True

    @property
    def left_s(self) -> float:
        """Seconds until the process must have ended; infinite without a request."""
        return self.asked_s + self.within_s - monotonic_s()


@dataclass(frozen=True)
class Grace:
    """The end of each phase of a stop, on this process's monotonic clock, s.

    shards_s: shards that finish by then are committed, others are given up. log_s: the energy log
    is written by then. rest_s: decisions and profiles are written by then.
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
        """The same without time for shards."""
        return replace(self, shards_s=monotonic_s())


NO_HURRY = Grace(math.inf, math.inf, math.inf)


def left_s(until_s: float, limit_s: float = math.inf) -> float:
    """Seconds until then: at most the limit, and never none, so that what is quick is done."""
    return min(limit_s, max(0.1, until_s - monotonic_s()))
