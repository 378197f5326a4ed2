"""A stand-in meter: nodes on one machine, metered as if they were different hardware."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster.hardware.proc import process_tree
from cluster.ledger.reader import energy_dataset
from cluster.ledger.usage import Use, Work
from cluster.ledger.writer import EnergyLog
from cluster.metering.node import NodeMeter
from cluster.metering.replay_node import REPLAY_ENV, ReplayNode
from cluster.metering.select import choose_cpu
from cluster.metering.source import Refused
from cluster.metering.tenant import Tenant, host_sources
from cluster.storage.open import open_store
from tests.support.meter_worlds import TestClock

POWER = '{"hw_name": "edge box", "idle_w": [1, 2, 3], "busy_w": [2, 4, 8]}'


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "edge.json"
    path.write_text(POWER)
    return path


def test_energy_follows_the_node_s_own_cpu_time_and_says_that_it_is_a_replay(trace: Path) -> None:
    clock, used = TestClock(), {1: 5.0, 2: 1.0}
    source = ReplayNode(trace, lambda: used, clock)
    clock.now_ns += 10 * 10**9
    used[1] += 2.0
    del used[2]
    used[3] = 1.0  # a process that came since
    reading = source.read()
    assert (reading.low_mj, reading.energy_mj, reading.high_mj) == (16_000, 32_000, 54_000)
    assert reading.quality == "estimated"
    assert reading.method == "replay: CPU time x watts of edge.json"
    del used[3]
    assert source.read() == reading  # what it used is not forgotten
    assert source.cpu_times([1, 2]).machine_s == 3.0
    assert source.cpu_times([1, 2]).process_s == {1: 7.0}


def test_a_node_s_neighbours_on_the_machine_are_not_foreign(trace: Path, tmp_path: Path) -> None:
    clock, used, replica = TestClock(), {7: 0.0}, 7
    store = open_store(str(tmp_path / "store"))
    source = ReplayNode(trace, lambda: used, clock)
    meter = NodeMeter(EnergyLog(store, "edge", cluster_id="c"), 1, hosts=lambda: [source],
                      clock_ns=clock)  # fmt: skip
    meter.admit(Tenant("r", replica))
    use = Use(clock.now_ns, None, "job", "a", "r", Work(job_id="job"))
    meter.begin(use)
    clock.now_ns += 10**10
    used[replica] += 10.0
    energy = meter.end(Use(use.start_ns, clock.now_ns, "job", "a", "r", use.work, images=9))
    assert energy.energy_mj == 60_000
    meter.settle("a", "won")
    assert meter.close()
    rows = energy_dataset(store).to_table().to_pylist()
    assert {(row["bucket"], row["energy_mj"]) for row in rows} == {("job", 60_000)}


def test_the_process_tree_is_a_process_and_what_it_started() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        assert {os.getpid(), child.pid} <= process_tree(os.getpid()).keys()
        assert process_tree(child.pid).keys() == {child.pid}
    finally:
        child.communicate(b"\n")


def test_a_node_with_a_replay_is_metered_by_it_alone(
    trace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(REPLAY_ENV, str(trace))
    (source,) = host_sources()
    assert (source.provider, source.device.hw_name) == ("replay", "edge box")


@pytest.mark.parametrize("text", ["", "{}", '{"hw_name": "x", "idle_w": [1], "busy_w": [1, 2, 3]}'])
def test_a_file_that_is_no_replay_leaves_the_energy_missing_and_says_why(
    trace: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace.write_text(text)
    with pytest.raises(Refused, match="UN0_METER_REPLAY"):
        ReplayNode(trace)
    monkeypatch.setenv(REPLAY_ENV, str(trace))
    (choice,) = choose_cpu()
    assert choice.source.provider == "missing"
    assert "UN0_METER_REPLAY" in choice.refused[0].reason
