"""A node's CPUs for its GPUs: which are near, and how many each has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.hardware import host_share
from cluster.hardware.host_share import cpus_per_gpu, near_cpus, sysfs_address
from tests.support.effort import examples

H100, L4, UNKNOWN = "NVIDIA H100 80GB HBM3", "NVIDIA L4", "NVIDIA Z9000"


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GPUs as /sys has them, on a node of 16 CPUs of which this process may use 2 to 11."""
    monkeypatch.setattr(host_share, "allowed_cpus", lambda: frozenset(range(2, 12)))
    for address, text in {
        "0000:3b:00.0": "0-3,8-11\n",
        "0000:86:00.0": "12-15\n",
        "0000:87:00.0": "\n",
        "10000:01:00.0": "4-7\n",
    }.items():
        (tmp_path / address).mkdir()
        (tmp_path / address / "local_cpulist").write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("bus_id", "near"),
    [
        ("00000000:3B:00.0", {2, 3, 8, 9, 10, 11}),
        ("0000:3b:00.0", {2, 3, 8, 9, 10, 11}),
        ("00010000:01:00.0", {4, 5, 6, 7}),
        ("00000000:86:00.0", None),  # none that this process may use
        ("00000000:87:00.0", None),  # the node does not tell
        ("00000000:88:00.0", None),  # not there
    ],
)
def test_cpus_near_a_gpu_that_may_be_used(bus_id: str, near: set[int], devices: Path) -> None:
    assert near_cpus(bus_id, devices) == near


def test_a_system_without_affinity_tells_nothing(
    devices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host_share, "allowed_cpus", lambda: None)
    assert near_cpus("0000:3b:00.0", devices) is None


@pytest.mark.parametrize("text", ["", "3b:00.0", "../../etc", "0000:3b:00.0/x"])
def test_what_is_no_pci_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"domain:bus:device\.function"):
        sysfs_address(text)


def test_shares_follow_the_data_sheets() -> None:
    assert cpus_per_gpu(16, [H100]) == [16]
    assert cpus_per_gpu(17, [H100, H100]) == [9, 8]
    fast, slow = cpus_per_gpu(64, [H100, L4])
    assert fast > 5 * slow >= 5
    assert cpus_per_gpu(12, [UNKNOWN, UNKNOWN, "another"]) == [4, 4, 4]
    assert cpus_per_gpu(12, [H100, UNKNOWN, H100]) == [4, 4, 4]
    assert cpus_per_gpu(12, [1.0, 2.0, 3.0]) == [2, 4, 6]
    assert cpus_per_gpu(0, [H100, L4]) == [1, 1]
    assert cpus_per_gpu(8, []) == []


def test_a_speed_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="above 0"):
        cpus_per_gpu(8, [1.0, 0.0])


SPEEDS = st.lists(st.integers(1, 1000).map(float), min_size=1, max_size=9)


@given(st.integers(0, 300), SPEEDS)
@settings(max_examples=examples(300))
def test_shares_are_fair(cpus: int, speeds: list[float]) -> None:
    shares = cpus_per_gpu(cpus, speeds)
    assert len(shares) == len(speeds)
    assert min(shares) >= 1
    assert sum(shares) == max(cpus, len(speeds))
    for mine, my_speed in zip(shares, speeds, strict=True):
        for other, its_speed in zip(shares, speeds, strict=True):
            if my_speed >= its_speed:
                assert mine >= other - (my_speed == its_speed)
            if other > 1:  # its last CPU would not serve me better
                assert mine / my_speed >= (other - 1) / its_speed - 1e-9


@given(st.integers(0, 100), SPEEDS)
@settings(max_examples=examples(100))
def test_more_cpus_leave_nobody_with_fewer(cpus: int, speeds: list[float]) -> None:
    less, more = cpus_per_gpu(cpus, speeds), cpus_per_gpu(cpus + 1, speeds)
    assert all(a <= b for a, b in zip(less, more, strict=True))


def test_every_thread_stays_on_the_cpus_that_are_given() -> None:
    script = (
        "import os, threading\n"
        "from cluster.hardware.host_share import stay_on\n"
        "go, found = threading.Event(), []\n"
        "def look():\n    go.wait()\n    found.append(os.sched_getaffinity(0))\n"
        "early = threading.Thread(target=look); early.start()\n"
        "one = {min(os.sched_getaffinity(0))}\n"
        "stay_on(one); go.set()\n"
        "late = threading.Thread(target=look); late.start()\n"
        "early.join(); late.join()\n"
        "assert found == [one, one], found\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
