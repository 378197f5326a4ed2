"""RAPL: the energy counters of CPU packages and their memory, as Linux shows them (powercap).

``package`` contains ``core`` and ``uncore``, and ``psys`` contains everything, so only package
and dram are read, which do not overlap. A zone can be shown twice, through MSRs and through MMIO:
that is one counter. Zones and files: Linux, Documentation/power/powercap/powercap.rst.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.clock import monotonic_ns
from cluster.hardware.identify import cpu_name
from cluster.ledger.reading import Device, Reading
from cluster.metering.counter import CounterTrack
from cluster.metering.source import ClockNs, Refused
from cluster.metering.ticker import Ticker

POWERCAP = Path("/sys/class/powercap")
POLL_S = 10.0  # so that no turn of the counter goes unseen: the shortest takes over a minute
METHOD = "RAPL energy_uj"


@dataclass(frozen=True)
class RaplZone:
    """A package, or the memory of one, and the directory that shows it."""

    path: Path
    name: str
    zone: Literal["package", "dram"]
    parent: str | None

    @property
    def energy_file(self) -> Path:
        return self.path / "energy_uj"


def find_zones(root: Path = POWERCAP) -> tuple[RaplZone, ...]:
    """The packages and their dram zones, each once. Raises Refused where there is no package."""
    packages: dict[str, RaplZone] = {}
    drams: dict[str, RaplZone] = {}
    for path in sorted(root.glob("intel-rapl*:*"), key=_msr_first):
        name = _text(path / "name")
        if name is not None and name.startswith("package"):
            packages.setdefault(name, RaplZone(path, name, "package", None))
        elif name == "dram":
            parent = _text(path.parent / path.name.rpartition(":")[0] / "name") or "package"
            drams.setdefault(parent, RaplZone(path, f"{parent}-dram", "dram", parent))
    if not packages:
        raise Refused(
            f"no RAPL package under {root}",
            "on a physical x86 machine: sudo modprobe intel_rapl_common; a container needs "
            "/sys/class/powercap unmasked; most virtual machines have none",
        )
    return (*packages.values(), *drams.values())


class RaplSource:
    """One RAPL zone. Raises Refused, with the command that allows it, if it cannot be read.

    poll_s: how often to read it unasked, or None.
    """

    provider = "rapl"

    def __init__(
        self,
        zone: RaplZone,
        clock_ns: ClockNs = monotonic_ns,
        poll_s: float | None = POLL_S,
    ) -> None:
        self.device = Device(zone.name, "cpu", cpu_name(), zone.zone, zone.parent)
        self.zone = zone
        self._file = zone.energy_file
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._closed = False
        _check([zone])
        self._track = CounterTrack(METHOD, 1000, _range_uj(zone.path))
        self._ticker = Ticker(self.read, poll_s, f"rapl {zone.name}")

    def read(self) -> Reading:
        with self._lock:
            at_ns = self._clock_ns()
            if self._closed:
                return self._track.failed(at_ns, "the meter is closed")
            try:
                return self._track.read(at_ns, int(self._file.read_text()))
            except (OSError, ValueError) as error:
                return self._track.failed(at_ns, f"{self._file} cannot be read: {error}")

    def close(self) -> None:
        self._closed = True
        self._ticker.close()


def open_rapl(root: Path = POWERCAP, clock_ns: ClockNs = monotonic_ns) -> tuple[RaplSource, ...]:
    """A source for every zone. Raises Refused if there is none, or one cannot be read."""
    zones = find_zones(root)
    _check(zones)
    return tuple(RaplSource(zone, clock_ns) for zone in zones)


def max_power_mw(zone: Path) -> int | None:
    """The highest power limit that the zone allows, mW; None if it reports none.

    Processors go beyond it for a while; many leave it at zero.
    """
    limits = (_text(file) for file in zone.glob("constraint_*_max_power_uw"))
    return (
        max((int(text) // 1000 for text in limits if text and text.isdecimal()), default=0) or None
    )


def _check(zones: Sequence[RaplZone]) -> None:
    """Raise Refused, with the command that allows it, unless all of the zones can be read."""
    for zone in zones:
        try:
            int(zone.energy_file.read_text())
        except PermissionError:
            files = " ".join(str(zone.energy_file) for zone in zones)
            raise Refused(
                f"{zone.energy_file} may be read by root only",
                f"sudo chmod a+r {files}  # until the next boot; "
                "docs/how-to/meters.md has a udev rule",
            ) from None
        except (OSError, ValueError) as error:
            raise Refused(f"{zone.energy_file} cannot be read: {error}") from None


def _msr_first(path: Path) -> tuple[bool, str]:
    return re.match(r"intel-rapl:", path.name) is None, path.name


def _range_uj(zone: Path) -> int | None:
    text = _text(zone / "max_energy_range_uj")
    return int(text) if text is not None and text.isdecimal() and int(text) else None


def _text(file: Path) -> str | None:
    try:
        return file.read_text().strip()
    except OSError:
        return None
