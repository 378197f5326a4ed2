"""What of a machine a process may use: made-up trees of /proc and /sys, and this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from un0.cgroups import cpus_in_list
from un0.errors import InputError
from un0.machine import cpus_here, cpus_of, memory_of, usable_cpus

MB = 10**6
V2 = "25 20 0:22 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
V1_CPU = "33 31 0:30 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "36 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def v2(root: Path, group: str, **files: str) -> Path:
    """A tree with one group hierarchy; names such as ``a__cpu.max`` for ``a/cpu.max``."""
    found = {f"sys/fs/cgroup/{k.replace('__', '/')}": v for k, v in files.items()}
    facts = {"proc/self/cgroup": f"0::{group}\n", "proc/self/mountinfo": V2}
    (root / f"sys/fs/cgroup/{group.strip('/')}").mkdir(parents=True, exist_ok=True)
    return tree(root, {**facts, **found})


def test_a_quota_of_the_group_holds(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a/b", **{"a__b__cpu.max": "250000 100000\n", "a__cpu.max": "max 100000"})
    found = cpus_of(root, {}, 32, 32)
    assert (found.share, found.usable) == (2.5, 2)
    assert str(found) == "2.5 of 32: CPU quota of its cgroup"


def test_a_quota_above_the_group_holds_too(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a/b", **{"a__b__cpu.max": "max 100000", "a__cpu.max": "400000 100000"})
    assert cpus_of(root, {}, 32, 32).usable == 4


@pytest.mark.parametrize("group", ["/", "/../../other", "/docker/abc"])
def test_inside_a_container_the_mounted_group_counts(tmp_path: Path, group: str) -> None:
    """With a namespace of its own, seen from outside it, and without one."""
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": f"0::{group}\n",
            "proc/self/mountinfo": V2,
            "sys/fs/cgroup/cpu.max": "150000 100000",
        },
    )
    assert cpus_of(root, {}, 32, 32).share == 1.5


@pytest.mark.parametrize("mounted", ["/", "/docker/abc"])
def test_the_first_version_of_groups(tmp_path: Path, mounted: str) -> None:
    inside = "docker/abc/" if mounted == "/" else ""
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n0::/\n",
            "proc/self/mountinfo": (V1_CPU + V1_MEMORY).format(root=mounted),
            f"sys/fs/cgroup/cpu,cpuacct/{inside}cpu.cfs_quota_us": "50000\n",
            f"sys/fs/cgroup/cpu,cpuacct/{inside}cpu.cfs_period_us": "100000\n",
            f"sys/fs/cgroup/memory/{inside}memory.limit_in_bytes": f"{600 * MB}\n",
            f"sys/fs/cgroup/memory/{inside}memory.usage_in_bytes": f"{300 * MB}\n",
            f"sys/fs/cgroup/memory/{inside}memory.stat": f"total_inactive_file {100 * MB}\n",
            "proc/meminfo": "MemTotal: 32000000 kB\nMemAvailable: 30000000 kB\n",
        },
    )
    cpus = cpus_of(root, {}, 8, 8)
    assert (cpus.share, cpus.usable) == (0.5, 1), "never less than one thread"
    memory = memory_of(root, 10**12)
    assert (memory.usable_bytes, memory.limit_bytes) == (400 * MB, 600 * MB)
    assert str(memory) == "0.4 GB are free of the 0.6 GB that its cgroup allows"


def test_no_quota_in_either_version(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        {
            "proc/self/cgroup": "3:cpu,cpuacct:/\n",
            "proc/self/mountinfo": V1_CPU.format(root="/"),
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
        },
    )
    assert str(cpus_of(root, {}, 8, 8)) == "8 of 8"
    root = v2(tmp_path / "new", "/", **{"cpu.max": "max 100000"})
    assert cpus_of(root, {}, 8, 8).usable == 8


def test_memory_of_the_tightest_group_and_of_the_machine(tmp_path: Path) -> None:
    root = v2(
        tmp_path,
        "/a/b",
        **{
            "a__b__memory.max": "max",
            "a__memory.max": str(2000 * MB),
            "a__memory.high": str(1800 * MB),
            "a__memory.current": str(1500 * MB),
            "a__memory.stat": f"anon 5\ninactive_file {500 * MB}\n",
        },
    )
    meminfo = "MemTotal: 8000000 kB\nMemAvailable: {} kB\n"
    tree(root, {"proc/meminfo": meminfo.format(7_000_000)})
    assert memory_of(root, 10**12).usable_bytes == 800 * MB
    tree(root, {"proc/meminfo": meminfo.format(300_000)})
    assert memory_of(root, 10**12).usable_bytes == 300_000 * 1024


def test_a_set_of_cpus_and_affinity(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", **{"a__cpuset.cpus.effective": "0-1,7\n"})
    assert str(cpus_of(root, {}, 32, 3)) == "3 of 32: cpuset of its cgroup"
    assert str(cpus_of(root, {}, 32, 2)) == "2 of 32: CPU affinity"
    assert [cpus_in_list(text) for text in ("0-3,8", "", "max")] == [{0, 1, 2, 3, 8}, set(), set()]


def test_what_slurm_grants(tmp_path: Path) -> None:
    slurm = {"SLURM_CPUS_ON_NODE": "8", "SLURM_CPUS_PER_TASK": "4"}
    assert str(cpus_of(tmp_path, slurm, 32, 32)) == "4 of 32: SLURM_CPUS_PER_TASK"
    assert cpus_of(tmp_path, {"SLURM_CPUS_ON_NODE": "8"}, 32, 32).usable == 8
    assert cpus_of(tmp_path, {"SLURM_CPUS_PER_TASK": "many"}, 32, 32).usable == 32


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no CPU affinity on this system")
@pytest.mark.slow
def test_affinity_of_a_real_process() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "import un0.workers, un0.machine as m; print(m.cpus_here().usable, m.cpus_here().cause)\n"
        "print(un0.workers.default_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, threads = done.stdout.splitlines()
    assert first.startswith("1 ")
    assert threads == "1"


def test_the_user_may_overrule_what_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UN0_CPUS", "3")
    assert (usable_cpus(), cpus_here().cause) == (3, "UN0_CPUS")
    monkeypatch.setenv("UN0_CPUS", "0")
    with pytest.raises(InputError, match="UN0_CPUS is '0'; give a whole number"):
        usable_cpus()
