"""A node's CPUs for its GPUs: which are near one, and how many each is to have."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from cluster.hardware.datasheets import gpu_named
from un0.cgroups import cpus_in_list
from un0.machine import allowed_cpus

PCI_DEVICES = Path("/sys/bus/pci/devices")
_BUS_ID = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])")


def near_cpus(bus_id: str, devices: Path = PCI_DEVICES) -> frozenset[int] | None:
    """The hardware threads near a PCI device, of those that this process may run on.

    bus_id: as NVML gives it, such as ``00000000:3B:00.0``. None where the node does not tell which
    are near (virtual machines often do not), where it is not known on which this process may run,
    and where it may run on none of those near: then every CPU is as good as another.
    """
    path = devices / sysfs_address(bus_id) / "local_cpulist"
    try:
        near = cpus_in_list(path.read_text().strip())
    except (OSError, UnicodeDecodeError):
        return None
    return (near & (allowed_cpus() or frozenset())) or None


def stay_on(cpus: Collection[int]) -> None:
    """Keep every thread of this process, and those they start, on these hardware threads."""
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            os.sched_setaffinity(int(task.name), cpus)


def sysfs_address(bus_id: str) -> str:
    """A PCI device's name in /sys: ``0000:3b:00.0``, whose domain has four digits if it can.

    Raises ValueError for what is no address.
    """
    found = _BUS_ID.fullmatch(bus_id.lower())
    if found is None:
        raise ValueError(f"PCI address {bus_id!r}: give domain:bus:device.function, 0000:3b:00.0")
    domain, bus, device, function = found.groups()
    return f"{int(domain, 16):04x}:{bus}:{device}.{function}"


def cpus_per_gpu(cpus: int, devices: Sequence[str | float]) -> list[int]:
    """How many of a node's CPUs each of its GPUs is to have, in proportion to their speed.

    devices: names of GPUs, whose speed the data sheets give, or speeds in any one unit, above 0. A
    GPU in no data sheet counts as the mean of the others. Each has one CPU at least, even where
    there are more GPUs than CPUs; otherwise the shares add up to ``cpus``. Of equals, the first
    have what is over. Raises ValueError for a speed of 0 or less.
    """
    speeds = _speeds(devices)
    shares = [1] * len(speeds)
    for _ in range(cpus - len(speeds) if speeds else 0):
        # By highest averages (D'Hondt): no device could say that another's CPU serves it better.
        poorest = max(range(len(speeds)), key=lambda i: speeds[i] / shares[i])
        shares[poorest] += 1
    return shares


def _speeds(devices: Sequence[str | float]) -> list[float]:
    known: list[float | None] = []
    for device in devices:
        if isinstance(device, str):
            sheet = gpu_named(device)
            known.append(sheet.half_tflops if sheet else None)
        elif device > 0:
            known.append(float(device))
        else:
            raise ValueError(f"speed {device} of a GPU: give one above 0, or its name")
    found = [speed for speed in known if speed is not None]
    mean = sum(found) / len(found) if found else 1.0
    return [mean if speed is None else speed for speed in known]
