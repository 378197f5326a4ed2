"""RAPL as Linux shows it, on a directory tree of the test's own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cluster.metering.rapl import RaplSource, RaplZone, find_zones
from cluster.metering.select import choose_cpu
from cluster.metering.source import Refused
from tests.support.laps import Laps, between
from tests.support.meter_worlds import TestClock, powercap
from tests.support.rapl_world import RaplWorld, steady

RANGE_UJ = 262_143_328_850
SECOND_NS = 1_000_000_000
NOBODY = 65534


class Rapl:
    """One package: its file, a clock, and the source that reads it."""

    def __init__(self, root: Path, range_uj: int = RANGE_UJ) -> None:
        powercap(root, {"intel-rapl:0": "package-0"}, range_uj)
        self.zone = find_zones(root)[0]
        self.clock = TestClock()
        self.source = RaplSource(self.zone, self.clock, poll_s=None)

    def go_to(self, value_uj: int, after_s: float = 1.0) -> None:
        self.clock.now_ns += round(after_s * SECOND_NS)
        self.zone.energy_file.write_text(f"{value_uj}\n")


def test_microjoules_are_kept_between_readings(tmp_path: Path) -> None:
    rapl = Rapl(tmp_path)
    meter = Laps(rapl.source)
    laps = []
    for value_uj in range(0, 10_000, 700):
        rapl.go_to(value_uj)
        laps.append(meter.lap().energy_mj or 0)
    assert sum(laps) == 9  # 9,800 uJ, though no lap had a whole millijoule of its own


def test_a_wrap_adds_the_range_once_and_so_does_the_next(tmp_path: Path) -> None:
    rapl = Rapl(tmp_path, range_uj=100_000_000_000)
    start = rapl.source.read()
    for value_uj in (60_000_000_000, 99_999_000_000, 1_000_000, 70_000_000_000, 500_000):
        rapl.go_to(value_uj, after_s=70)
        end = rapl.source.read()
    assert end.epoch == start.epoch
    assert between(start, end).energy_mj == 200_000_500


def test_a_reset_is_not_taken_for_a_wrap(tmp_path: Path) -> None:
    rapl = Rapl(tmp_path)
    rapl.go_to(50_000_000)
    before = rapl.source.read()
    rapl.go_to(10)  # a wrap would mean 262 kJ in a second
    after = rapl.source.read()
    assert after.epoch == before.epoch + 1
    assert between(before, after).energy_mj is None


def test_so_long_a_silence_that_a_wrap_may_have_gone_unseen_ends_the_epoch(tmp_path: Path) -> None:
    rapl = Rapl(tmp_path)
    before = rapl.source.read()
    rapl.go_to(1_000_000, after_s=3600)
    after = rapl.source.read()
    assert after.epoch == before.epoch + 1


def test_a_counter_that_is_not_read_is_polled(tmp_path: Path) -> None:
    powercap(tmp_path, {"intel-rapl:0": "package-0"})
    reads = TestClock()

    def clock() -> int:
        reads.now_ns += 1
        return reads.now_ns

    source = RaplSource(find_zones(tmp_path)[0], clock, poll_s=0.001)
    while reads.now_ns < 5:  # of its own accord, or the test never ends
        os.sched_yield()
    source.close()


def test_zones_that_contain_others_or_show_them_again_are_left_out(tmp_path: Path) -> None:
    powercap(
        tmp_path,
        {
            "intel-rapl-mmio:0": "package-0",
            "intel-rapl-mmio:0:0": "dram",
            "intel-rapl:0": "package-0",
            "intel-rapl:0:0": "core",
            "intel-rapl:0:1": "uncore",
            "intel-rapl:0:2": "dram",
            "intel-rapl:1": "package-1",
            "intel-rapl:1:0": "dram",
            "intel-rapl:2": "psys",
        },
    )
    (tmp_path / "intel-rapl").mkdir()  # the control type: no zone
    assert find_zones(tmp_path) == (
        RaplZone(tmp_path / "intel-rapl:0", "package-0", "package", None),
        RaplZone(tmp_path / "intel-rapl:1", "package-1", "package", None),
        RaplZone(tmp_path / "intel-rapl:0:2", "package-0-dram", "dram", "package-0"),
        RaplZone(tmp_path / "intel-rapl:1:0", "package-1-dram", "dram", "package-1"),
    )


def test_a_package_shown_through_mmio_only_is_read_there(tmp_path: Path) -> None:
    powercap(tmp_path, {"intel-rapl-mmio:0": "package-0"})
    assert [zone.path.name for zone in find_zones(tmp_path)] == ["intel-rapl-mmio:0"]


def test_without_rapl_it_says_where_it_looked(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=str(tmp_path)):
        find_zones(tmp_path)


@pytest.fixture
def readable_dir() -> Iterator[Path]:
    """A directory that other users may enter, as pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="un0-test-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@contextmanager
def unprivileged() -> Iterator[None]:
    """As a user to whom permissions apply."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_refused_by_permissions_it_names_the_file_and_the_command(readable_dir: Path) -> None:
    zones = {"intel-rapl:0": ("package-0", steady(60)), "intel-rapl:0:0": ("dram", steady(5))}
    world = RaplWorld(readable_dir, zones)
    files = [
        readable_dir / "intel-rapl:0" / "energy_uj",
        readable_dir / "intel-rapl:0:0" / "energy_uj",
    ]
    for file in files:
        file.chmod(0o400 if os.geteuid() == 0 else 0o000)
    with unprivileged():
        (choice,) = choose_cpu(readable_dir)
    assert choice.source.provider == "cpu-estimate"
    (refusal,) = choice.refused
    assert str(files[0]) in refusal.reason
    assert refusal.fix is not None
    assert refusal.fix.startswith(f"sudo chmod a+r {files[0]} {files[1]}")
    assert "udev" in refusal.fix
    for file in files:
        file.chmod(0o444)  # what the command does
    with world.alive(), unprivileged():
        choices = choose_cpu(readable_dir)
    assert [choice.source.device.zone for choice in choices] == ["package", "dram"]
    assert all(choice.source.provider == "rapl" for choice in choices)
    for choice in choices:
        choice.source.close()
    world.close()
