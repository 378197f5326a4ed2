"""Which hardware threads belong to a CPU package, from /sys."""

from __future__ import annotations

import re
from pathlib import Path

TOPOLOGY = Path("/sys/devices/system/cpu")


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
