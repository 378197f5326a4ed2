"""CPU time of the machine, its hardware threads and its processes, from /proc."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")


@dataclass(frozen=True)
class CpuTimes:
    """Busy CPU seconds so far: of the machine since boot, and of some of its processes."""

    machine_s: float
    process_s: Mapping[int, float]

    def since(self, earlier: CpuTimes, pid: int) -> float:
        """What the process used since then; 0 if it is gone."""
        return max(0.0, self.process_s.get(pid, 0.0) - earlier.process_s.get(pid, 0.0))


def cpu_times(pids: Sequence[int]) -> CpuTimes:
    """CPU times now. A process that is gone is not among them; a machine that does not tell its
    own has used what its processes have."""
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


def _busy_idle_s(fields: Sequence[str]) -> tuple[float, float]:
    user, nice, system, idle, iowait, irq, softirq = map(int, fields[:7])
    tick_s = 1.0 / os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) * tick_s, (idle + iowait) * tick_s
