"""A stand-in meter for a node that is a part of a machine: several nodes on one machine, metered
as if they were different hardware. It is no measurement, and says so."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cluster.clock import monotonic_ns
from cluster.hardware.proc import CpuTimes, process_tree
from cluster.ledger.reading import Device, Reading, missing
from cluster.metering.source import ClockNs, Refused

REPLAY_ENV = "UN0_METER_REPLAY"
Watts = tuple[float, float, float]


class NodePower(BaseModel):
    """What a file of ``UN0_METER_REPLAY`` holds, as JSON; watts as [low, nominal, high].

    idle_w: all the time. busy_w: on top, for each CPU that the node's processes keep busy.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)

    hw_name: str = Field(min_length=1)
    idle_w: Watts
    busy_w: Watts

    def energy_mj(self, busy_s: float, elapsed_s: float) -> tuple[int, int, int]:
        """(low, nominal, high) of so many CPU seconds in that time."""
        low, nominal, high = (
            int(1e3 * (idle * elapsed_s + busy * busy_s))
            for idle, busy in zip(self.idle_w, self.busy_w, strict=True)
        )
        return low, nominal, high


class ReplayNode:
    """Energy of a node from the CPU time of its processes: the raylet's and all it started.

    Raises Refused if the file is not one of ``NodePower``.
    """

    provider = "replay"

    def __init__(
        self,
        path: Path,
        processes: Callable[[], Mapping[int, float]] = lambda: process_tree(os.getppid()),
        clock_ns: ClockNs = monotonic_ns,
    ) -> None:
        try:
            self._power = NodePower.model_validate_json(path.read_bytes())
        except (OSError, ValidationError) as error:
            raise Refused(f"{REPLAY_ENV}={path}: {error}") from None
        self.device = Device("cpu", "cpu", self._power.hw_name, "host")
        self._method = f"replay: CPU time x watts of {path.name}"
        self._processes = processes
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._seen = dict(processes())
        self._busy_s = 0.0
        self._start_ns = clock_ns()
        self._closed = False

    def cpu_times(self, pids: Sequence[int]) -> CpuTimes:
        """CPU times of the node's processes alone: other nodes here are not foreign work."""
        with self._lock:
            self._look()
            here = {pid: self._seen[pid] for pid in pids if pid in self._seen}
            return CpuTimes(self._busy_s, here)

    def read(self) -> Reading:
        with self._lock:
            at_ns = self._clock_ns()
            if self._closed:
                return missing(at_ns, "the meter is closed")
            self._look()
            low, nominal, high = self._power.energy_mj(self._busy_s, (at_ns - self._start_ns) / 1e9)
        return Reading(at_ns, nominal, "estimated", self._method, low_mj=low, high_mj=high)

    def close(self) -> None:
        self._closed = True

    def _look(self) -> None:
        """Add what every process has used since the last look; those that are gone keep theirs."""
        now = dict(self._processes())
        self._busy_s += sum(max(0.0, s - self._seen.get(pid, 0.0)) for pid, s in now.items())
        self._seen = now
