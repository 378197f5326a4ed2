"""Recorded traces, played back on a clock of the caller's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.errors import UserError
from tests.support.laps import Laps, between
from tests.support.meter_worlds import TestClock
from tests.support.replay import ReplaySource, load_traces

CSV = """t_s,device,energy_mj,hw_type
0,GPU-a,1000,gpu
0,package-0,5,cpu
1.5,GPU-a,1600,gpu
2.5,GPU-a,,gpu
3.5,GPU-a,2000,gpu
4.5,GPU-a,7,gpu
5.5,GPU-a,57,gpu
"""


def gpu_a(tmp_path: Path) -> tuple[TestClock, ReplaySource]:
    trace = tmp_path / "trace.csv"
    trace.write_text(CSV)
    clock = TestClock()
    return clock, ReplaySource(load_traces(trace)["GPU-a"], clock)


def test_the_counter_keeps_its_value_until_the_next(tmp_path: Path) -> None:
    clock, source = gpu_a(tmp_path)
    meter = Laps(source)
    for at_s, energy_mj in ((1.4, 0), (1.5, 600), (2.4, 0)):
        clock.now_ns = round(at_s * 1e9)
        assert meter.lap().energy_mj == energy_mj


def test_gaps_resets_and_the_end_are_what_they_were(tmp_path: Path) -> None:
    clock, source = gpu_a(tmp_path)
    readings = []
    for at_s in (0, 3.0, 4.0, 4.6, 5.5, 5.6):
        clock.now_ns = round(at_s * 1e9)
        readings.append(source.read())
    energies = [reading.energy_mj for reading in readings]
    assert energies == [0, None, 1000, 0, 50, None]
    assert [reading.epoch for reading in readings] == [0, 0, 0, 1, 1, 1]
    assert between(readings[2], readings[3]).energy_mj is None
    assert between(readings[3], readings[4]).energy_mj == 50


def test_devices_know_what_they_are(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text(CSV)
    devices = {name: trace.device for name, trace in load_traces(trace).items()}
    assert (devices["GPU-a"].hw_type, devices["GPU-a"].zone) == ("gpu", "gpu")
    assert (devices["package-0"].hw_type, devices["package-0"].zone) == ("cpu", "package")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("t_s,device,energy_mj\n1,GPU-a,many\n", "line 2: .*many"),
        ("t_s,device\n1,GPU-a\n", "line 2: .*energy_mj"),
        ("t_s,device,energy_mj\n1,a,1\n0,a,2\n", "line 3: t_s of a goes back"),
        ('{"t_s": 1, "device": "a", "energy_mj": 1}\nnonsense\n', "line 2 is not JSON"),
        ('{"t_s": 1, "device": "a", "energy_mj": 1}\n[]\n', "line 2 is not a JSON object"),
        ("t_s,device,energy_mj\n", "holds no reading"),
    ],
)
def test_a_broken_trace_is_refused_by_line(tmp_path: Path, text: str, message: str) -> None:
    trace = tmp_path / "trace"
    trace.write_text(text)
    with pytest.raises(UserError, match=message):
        load_traces(trace)


def test_a_trace_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        load_traces(tmp_path / "nowhere.csv")
