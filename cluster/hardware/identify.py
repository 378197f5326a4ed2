"""This machine's names and CPU times, from /proc."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path

MOST_THREADS = 4  # of a CPU replica: more gain little, and lose much where one stalls
GPU_THREADS = 1  # of a GPU replica


def cpu_name() -> str:
    """The processor's marketing name if the system has it, else its architecture."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def host_name() -> str:
    """This node's name: ``UN0_HOST_NAME``, for several nodes on one machine, else its host
    name."""
    return os.environ.get("UN0_HOST_NAME") or socket.gethostname()


def hardware_class(
    gpu_name: str | None, threads: int, cpu: str | None = None, cpus: float | None = None
) -> str:
    """The hardware class of a replica: the name of its GPU, or of its CPU and its threads there.

    Replicas of one class share what was measured of it. cpu: None is this machine's. cpus: those
    the replica's threads have together; fewer than threads (a small quota, more replicas than
    CPUs) make another, slower class.
    """
    if gpu_name is not None:
        return gpu_name
    slowed = f" ({cpus:.2g} CPUs)" if cpus is not None and cpus < threads else ""
    return f"cpu: {cpu or cpu_name()}{slowed} x{threads}"


def replica_threads(*cpus: int, replicas: int | None = None) -> int:
    """Threads of a CPU replica on nodes of so many CPUs: up to four, fewest CPUs left over.

    replicas: there are to be so many in all; None: as many as fit.
    """
    room = {t: sum(count // t for count in cpus) for t in range(1, MOST_THREADS + 1)}
    fitting = [t for t in room if room[t] >= (replicas or 1)] or [1]
    return max(fitting, key=lambda t: (min(room[t], replicas or room[t]) * t, t))
