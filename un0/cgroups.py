"""The control groups that this process is in, and their limits on CPUs and memory (Linux, v1 and
v2). Reads a tree of ``/proc`` and ``/sys`` under any root, so that tests can make one up."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

UNLIMITED_BYTES = 2**60  # v1 says "no limit" with the largest multiple of a page


def directories(root: Path, controller: str) -> list[Path]:
    """The directories of this process's group and of every group above it, nearest first.

    controller: ``cpu``, ``cpuset`` or ``memory``. A limit above holds too, and inside a container
    the topmost directory is often all there is to see. Empty where there are no such groups.
    """
    paths = {kind: path for kinds, path in _memberships(root) for kind in kinds}
    found: list[Path] = []
    for mount_root, mount_point, kinds in _mounts(root):
        kind = controller if controller in kinds else "" if "" in kinds else None
        if kind is not None and kind in paths:
            found += _upwards(root, mount_root, mount_point, paths[kind])
    return found


def cpu_quotas(root: Path) -> Iterator[float]:
    """CPUs that each group's quota allows."""
    for folder in directories(root, "cpu"):
        text = _read(folder / "cpu.max")
        if text is None:
            parts = [_read(folder / f"cpu.cfs_{name}_us") or "" for name in ("quota", "period")]
        else:
            parts = text.split()
        if len(parts) == 2 and all(part.isdecimal() for part in parts) and int(parts[1]):
            yield int(parts[0]) / int(parts[1])  # "max" and -1 are no numbers of this kind


def cpu_sets(root: Path) -> Iterator[int]:
    """CPUs in each group's set."""
    for folder in directories(root, "cpuset"):
        for name in ("cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"):
            if cpus := cpus_in_list(_read(folder / name) or ""):
                yield len(cpus)
                break


def memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """(limit, what is left of it) of each group, in bytes. File pages that can be dropped count as
    left."""
    for folder in directories(root, "memory"):
        limits = [_number(folder / name) for name in ("memory.max", "memory.high")]
        limits.append(_number(folder / "memory.limit_in_bytes"))
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        stat = dict(
            line.split(maxsplit=1)
            for line in (_read(folder / "memory.stat") or "").splitlines()
            if len(line.split()) == 2
        )
        files = stat.get("total_inactive_file") or stat.get("inactive_file") or "0"
        kept = max(0, used - (int(files) if files.isdecimal() else 0))
        for limit in limits:
            if limit is not None and limit < UNLIMITED_BYTES:
                yield limit, max(0, limit - kept)


def cpus_in_list(text: str) -> frozenset[int]:
    """The CPUs that a list such as ``0-3,8`` names; none for what is no list."""
    if not re.fullmatch(r"\d+(-\d+)?(,\d+(-\d+)?)*", text):
        return frozenset()
    named: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        named.update(range(int(first), int(last or first) + 1))
    return frozenset(named)


def _memberships(root: Path) -> Iterator[tuple[list[str], str]]:
    """(controllers, path of this process's group) of each hierarchy; "" stands for v2's."""
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        parts = line.split(":", 2)
        if len(parts) == 3:
            yield parts[1].split(","), parts[2]


def _mounts(root: Path) -> Iterator[tuple[str, str, list[str]]]:
    """(the group that is mounted, where, controllers) of each mounted hierarchy."""
    for line in (_read(root / "proc/self/mountinfo") or "").splitlines():
        before, _, after = line.partition(" - ")
        fields, kind = before.split(), after.split()
        if len(fields) >= 5 and len(kind) >= 3 and kind[0] in ("cgroup", "cgroup2"):
            controllers = [""] if kind[0] == "cgroup2" else kind[2].split(",")
            yield _unescaped(fields[3]), _unescaped(fields[4]), controllers


def _upwards(root: Path, mount_root: str, mount_point: str, path: str) -> list[Path]:
    """Directories from the group's up to the mount's. A group outside what is mounted, as seen
    from some containers, leaves only the mount's own."""
    top = root / mount_point.lstrip("/")
    try:
        inside = PurePosixPath(path).relative_to(mount_root)
    except ValueError:
        inside = PurePosixPath()
    if ".." in inside.parts:
        inside = PurePosixPath()
    folders = [top / inside, *(top / parent for parent in inside.parents)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.isdecimal() else None


def _read(path: Path) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return path.read_text().strip()
    return None
