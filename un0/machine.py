"""What this process may use of its machine: CPUs and memory, and what limits them.

Containers, batch systems and ``taskset`` give a process less than the machine has. Whatever sizes
itself by the machine asks here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from un0 import cgroups
from un0.errors import InputError

CPUS_ENV = "UN0_CPUS"  # overrules what is found, such as on a node that stands for a larger one
ROOT = Path("/")


@dataclass(frozen=True)
class Cpus:
    """share: CPUs' worth of time, which a quota may cut into fractions. machine: CPUs that it has.
    cause: what limits the share, in words; empty if nothing does."""

    share: float
    machine: int
    cause: str

    @property
    def usable(self) -> int:
        """Threads worth starting: whole CPUs, at least one. What is over of a quota is left to
        the other processes of a run, since a thread that is throttled holds up those beside it."""
        return max(1, int(self.share))

    def __str__(self) -> str:
        text = f"{self.share:.3g} of {self.machine}"
        return f"{text}: {self.cause}" if self.cause else text


@dataclass(frozen=True)
class Memory:
    """usable_bytes: free now. limit_bytes: what there would be with nothing else running. cause:
    what sets the limit."""

    usable_bytes: int
    limit_bytes: int
    cause: str

    def __str__(self) -> str:
        return f"{gb(self.usable_bytes)} are free of the {gb(self.limit_bytes)} {self.cause}"


def usable_cpus() -> int:
    """Threads worth starting here, at least one. Raises InputError for a bad ``UN0_CPUS``."""
    return cpus_here().usable


def cpus_here() -> Cpus:
    """What this process may use of the machine's CPUs. Raises InputError for a bad ``UN0_CPUS``."""
    machine = machine_cpus()
    if (asked := os.environ.get(CPUS_ENV)) is not None:
        if not asked.isdecimal() or not int(asked):
            raise InputError(
                f"{CPUS_ENV} is {asked!r}; give a whole number of CPUs from 1, or unset it"
            )
        return Cpus(float(asked), machine, CPUS_ENV)
    allowed = allowed_cpus()
    return cpus_of(ROOT, os.environ, machine, len(allowed) if allowed else None)


def allowed_cpus() -> frozenset[int] | None:
    """The CPUs, by number, that this process may run on; None where the system does not tell.

    A quota may leave it less time than they have: that is ``cpus_here``.
    """
    try:
        return frozenset(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # not on this system
        return None


def machine_cpus() -> int:
    """CPUs of the whole machine, as its meters and ``/proc/stat`` count them: to tell what share of
    the machine's joules is a process's, never to size a pool of threads."""
    return os.cpu_count() or 1


def usable_memory_bytes() -> int:
    """Memory that this process may still take."""
    return memory_here().usable_bytes


def memory_here() -> Memory:
    """What this process may use of the machine's memory."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        total = 2**63
    return memory_of(ROOT, total)


def cpus_of(root: Path, environment: Mapping[str, str], machine: int, affinity: int | None) -> Cpus:
    """The least of all limits; the first named where several are equal.

    root: of a tree with ``proc`` and ``sys``. Slurm's variables count because not every cluster
    enforces what it grants.
    """
    limits: list[tuple[float, str]] = [(float(machine), "")]
    limits += [(count, "cpuset of its cgroup") for count in cgroups.cpu_sets(root)]
    if affinity is not None:
        limits.append((affinity, "CPU affinity"))
    limits += [(cpus, "CPU quota of its cgroup") for cpus in cgroups.cpu_quotas(root)]
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        value = environment.get(name, "")
        if value.isdecimal() and int(value):
            limits.append((int(value), name))
    share, cause = min(limits, key=lambda limit: limit[0])
    return Cpus(share, machine, cause)


def memory_of(root: Path, total: int) -> Memory:
    """The least that is free, under any limit. total: bytes of the machine."""
    free = total
    try:
        lines = (root / "proc/meminfo").read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "MemTotal":
            total = min(total, 1024 * int(value.split()[0]))
        elif name == "MemAvailable":
            free = 1024 * int(value.split()[0])
    found = [(min(free, total), total, "that this machine has")]
    found += [
        (left, limit, "that its cgroup allows") for limit, left in cgroups.memory_limits(root)
    ]
    limit, cause = min((limit, cause) for _, limit, cause in found)
    return Memory(min(left for left, _, _ in found), limit, cause)


def gb(count: int) -> str:
    """Bytes for people, in units of 10**9."""
    return f"{count / 1e9:.3g} GB"
