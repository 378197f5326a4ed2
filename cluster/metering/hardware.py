"""What this machine is and how busy its CPUs are, from /proc."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def cpu_name() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def machine_cpu_s(stat: Path = Path("/proc/stat")) -> tuple[float, float]:
    """(busy, idle) seconds of every hardware thread of the machine together, since boot.

    Idle includes waiting for I/O, busy includes guests; time stolen by a hypervisor is neither.
    Raises OSError where there is no such file (macOS, Windows).
    """
    fields = stat.read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, idle, iowait, irq, softirq = map(int, fields[:7])
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) * tick_s, (idle + iowait) * tick_s
