"""Whatever limits a process has: never more CPUs or memory than any of them, and one CPU at
least."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from un0.machine import cpus_of, memory_of

LEVELS = ("", "a", "a/b", "a/b/c")
quotas = st.lists(st.none() | st.integers(1_000, 10**7), min_size=4, max_size=4)
limits = st.lists(st.none() | st.integers(0, 2**50), min_size=4, max_size=4)
numbers = st.none() | st.integers(1, 512)


def grow(root: Path, version: int, name: str, values: list[str]) -> None:
    """Groups one in the other, the process in the innermost; a file with a value in each."""
    kind = "cgroup2 cgroup2 rw" if version == 2 else "cgroup cgroup rw,cpu,memory"
    (root / "proc/self").mkdir(parents=True, exist_ok=True)
    (root / "proc/self/mountinfo").write_text(f"1 2 0:3 / /sys/fs/cgroup rw - {kind}\n")
    group = "0::/a/b/c" if version == 2 else "1:cpu,memory:/a/b/c"
    (root / "proc/self/cgroup").write_text(group)
    for level, value in zip(LEVELS, values, strict=True):
        folder = root / "sys/fs/cgroup" / level
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(value)
        (folder / "cpu.cfs_period_us").write_text("100000")


@given(st.sampled_from([1, 2]), quotas, st.integers(1, 512), numbers, numbers, numbers)
def test_cpus(
    version: int,
    quota_us: list[int | None],
    machine: int,
    affinity: int | None,
    per_task: int | None,
    on_node: int | None,
) -> None:
    slurm = {"SLURM_CPUS_PER_TASK": per_task, "SLURM_CPUS_ON_NODE": on_node}
    with tempfile.TemporaryDirectory() as name:
        if version == 2:
            grow(Path(name), 2, "cpu.max", [f"{q or 'max'} 100000" for q in quota_us])
        else:
            grow(Path(name), 1, "cpu.cfs_quota_us", [str(q or -1) for q in quota_us])
        environment = {k: str(v) for k, v in slurm.items() if v is not None}
        found = cpus_of(Path(name), environment, machine, affinity)
    given_limits = [machine, *(n for n in (affinity, per_task, on_node) if n is not None)]
    least = min([*given_limits, *(q / 100_000 for q in quota_us if q is not None)])
    assert found.share == least
    assert found.usable == max(1, int(least))
    assert bool(found.cause) == (least < machine)


@given(st.sampled_from([1, 2]), limits, limits, st.integers(1, 2**50), st.integers(0, 2**40))
def test_memory(
    version: int, limit: list[int | None], used: list[int | None], total: int, available_kb: int
) -> None:
    none = "max" if version == 2 else str(2**63 - 4096)
    names = ("memory.max", "memory.current")
    if version == 1:
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        grow(root, version, names[0], [none if x is None else str(x) for x in limit])
        grow(root, version, names[1], [str(x or 0) for x in used])
        (root / "proc/meminfo").write_text(f"MemAvailable: {available_kb} kB\n")
        found = memory_of(root, total)
    left = [max(0, a - (b or 0)) for a, b in zip(limit, used, strict=True) if a is not None]
    assert found.usable_bytes == min([total, 1024 * available_kb, *left])
    assert found.limit_bytes == min([total, *(x for x in limit if x is not None)])
