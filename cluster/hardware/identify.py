"""This machine's names and CPU times, from /proc."""

from __future__ import annotations

import os
import platform
import re
import socket
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
TOPOLOGY = Path("/sys/devices/system/cpu")
MOST_THREADS = 4  # of a CPU replica: more gain little, and lose much where one stalls


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


def replica_threads(cpus: int) -> int:
    """Threads of a CPU replica where there are so many CPUs: up to four, fewest CPUs left over."""
    most = min(MOST_THREADS, max(1, cpus))
    return max(range(1, most + 1), key=lambda t: (cpus // t * t, t))


@dataclass(frozen=True)
class CpuTimes:
    """Busy CPU seconds so far: of the machine since boot, and of some of its processes."""

    machine_s: float
    process_s: Mapping[int, float]

    def since(self, earlier: CpuTimes, pid: int) -> float:
        """What the process used since then; 0 if it is gone."""
        return max(0.0, self.process_s.get(pid, 0.0) - earlier.process_s.get(pid, 0.0))


def cpu_times(pids: Sequence[int]) -> CpuTimes:
    """CPU times now. Processes that have ended are left out. Where the system does not report the
    machine's total, it is the sum of the processes."""
    processes = {pid: used_s for pid in pids if (used_s := _process_cpu_s(pid)) is not None}
    try:
        machine_s = machine_cpu_s()[0]
    except OSError:
        machine_s = sum(processes.values())
    return CpuTimes(machine_s, processes)


def process_tree(root: int) -> dict[int, float]:
    """Busy CPU seconds of a process and all that descend from it, by process."""
    processes = {pid: stat for pid in _all_pids() if (stat := _process_stat(pid)) is not None}
    children: dict[int, list[int]] = {}
    for pid, (parent, _) in processes.items():
        children.setdefault(parent, []).append(pid)
    found: dict[int, float] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        if pid in processes and pid not in found:
            found[pid] = processes[pid][1]
            waiting += children.get(pid, [])
    return found


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _process_cpu_s(pid: int) -> float | None:
    stat = _process_stat(pid)
    return None if stat is None else stat[1]


def _process_stat(pid: int) -> tuple[int, float] | None:
    """(parent, busy CPU seconds) of a process; None if it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()  # after the name, which may hold blanks
    return int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def machine_cpu_s(stat: Path = STAT) -> tuple[float, float]:
    """(busy, idle) seconds of every hardware thread of the machine together, since boot.

    Idle includes waiting for I/O, busy includes guests; time stolen by a hypervisor is neither.
    Raises OSError where there is no such file (macOS, Windows).
    """
    return _busy_idle_s(stat.read_text().split("\n", 1)[0].split()[1:])


def threads_cpu_s(threads: Collection[int], stat: Path = STAT) -> tuple[float, float]:
    """The same of some hardware threads, by number."""
    names = {f"cpu{thread}" for thread in threads}
    busy_s = idle_s = 0.0
    for line in stat.read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            busy, idle = _busy_idle_s(fields)
            busy_s, idle_s = busy_s + busy, idle_s + idle
    return busy_s, idle_s


def threads_of(package: str, topology: Path = TOPOLOGY) -> frozenset[int] | None:
    """The hardware threads, online, of what RAPL calls ``package-N`` or ``package-N-die-M``.

    None if the system does not say which threads belong to which package.
    """
    wanted = re.fullmatch(r"package-(\d+)(?:-die-(\d+))?", package)
    found: dict[int, tuple[str, str]] = {}
    for path in topology.glob("cpu[0-9]*/topology"):
        try:
            of_package = (path / "physical_package_id").read_text().strip()
            die = (path / "die_id").read_text().strip() if wanted and wanted[2] else ""
        except OSError:
            continue  # it is offline
        found[int(path.parent.name.removeprefix("cpu"))] = of_package, die
    if not found or wanted is None:
        return None
    here = wanted[1], wanted[2] or ""
    return frozenset(thread for thread, place in found.items() if place == here)


def _busy_idle_s(fields: Sequence[str]) -> tuple[float, float]:
    user, nice, system, idle, iowait, irq, softirq = map(int, fields[:7])
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) * tick_s, (idle + iowait) * tick_s
