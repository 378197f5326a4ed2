"""CPU energy from CPU time: an estimate with bounds, for machines that expose no counter.

Joules = CPU seconds of this process x watts per busy hardware thread. The watts are the
full-load figures per vCPU that Cloud Carbon Footprint derives from SPECpower_ssj2008 results
(ccf-coefficients, 2023): 1.69 W for AMD EPYC 2nd generation (the thriftiest it lists), 3.5 W for
its average over a cloud's fleet, 8.58 W for Intel Sandy Bridge (the hungriest). They include a
share of the idle machine. Idle time of this process is not charged to it.
"""

from __future__ import annotations

import platform
import time
from pathlib import Path

from cluster.types import Energy

LOW_W, NOMINAL_W, HIGH_W = 1.69, 3.5, 8.58
METHOD = "cpu-time x watts per busy vCPU (CCF 2023)"


class CpuTimeMeter:
    """Estimates the energy of this process, all of its threads included."""

    provider = "cpu-time-estimate"

    def __init__(self) -> None:
        self.hardware = f"cpu: {cpu_name()}"
        self._last_cpu_s = time.process_time()

    def lap(self) -> Energy:
        now_cpu_s = time.process_time()
        cpu_s, self._last_cpu_s = now_cpu_s - self._last_cpu_s, now_cpu_s
        return Energy(
            energy_mj=round(cpu_s * NOMINAL_W * 1e3),
            low_mj=round(cpu_s * LOW_W * 1e3),
            high_mj=round(cpu_s * HIGH_W * 1e3),
            quality="estimated",
            method=METHOD,
        )

    def close(self) -> None:
        pass


def cpu_name() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
