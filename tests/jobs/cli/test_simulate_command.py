"""``un0 simulate`` and the benchmark's rows, as scripts and people see them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from cluster.simulation.energy import BUCKETS
from jobs.cli.main import main
from jobs.cli.simulate import power_chart
from tests.support.benchmarks import benchmark
from tests.support.simulated import MODEL, hardware


@pytest.fixture
def small(tmp_path: Path) -> list[str]:
    """A fleet and a workload that are simulated in no time."""
    kinds = [hardware("quick", 2), hardware("slow", 1, 10.0)]
    data = {
        "fleet": {"name": "small", "hardware": kinds},
        "workload": {
            "name": "hour",
            "models": {MODEL: 1.0},
            "load": 0.1,
            "slack_s": 1800,
            "arrivals": {"kind": "synthetic", "jobs": 20, "span_s": 3600},
        },
    }
    for name, content in data.items():
        (tmp_path / f"{name}.yaml").write_text(json.dumps(content))
    return [str(tmp_path / "fleet.yaml"), str(tmp_path / "workload.yaml")]


def un0(monkeypatch: pytest.MonkeyPatch, *args: str) -> int:
    monkeypatch.setattr(sys, "argv", ["un0", *args])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_json_has_every_figure(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["simulate", *small, "--policy", "warm-pull", "--seed", "3", "--json"]
    assert un0(monkeypatch, *args) == 0
    first = json.loads(capsys.readouterr().out)
    assert sum(first["buckets_j"].values()) == pytest.approx(first["energy_j"])
    assert set(first["buckets_j"]) == set(BUCKETS)
    assert first["energy_over_lb"] == pytest.approx(first["energy_j"] / first["bound_j"])
    assert first["energy_over_lb"] >= 1
    assert (first["jobs"], first["missed"], first["policy"]) == (20, 0, "warm-pull")
    assert first["energy_quality"] == "estimated"
    bins_s = [first["power_bin_s"]] * len(first["power_w"])
    drawn_j = sum(s * w for s, w in zip(bins_s, first["power_w"], strict=True))
    assert drawn_j == pytest.approx(first["energy_j"])
    assert un0(monkeypatch, *args) == 0
    assert json.loads(capsys.readouterr().out) == first


def test_people_get_a_summary_and_a_chart(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert un0(monkeypatch, "simulate", *small, "--policy", "pull-park") == 0
    text = capsys.readouterr().out
    for word in ("times the least possible", "0 deadlines", "makespan", "idle", "quick", "█"):
        assert word in text


def test_a_policy_that_is_not_known_is_refused(
    small: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert un0(monkeypatch, "simulate", *small, "--policy", "best") == 2
    assert "'best' is not known; choose one of" in capsys.readouterr().err


def test_the_chart_is_as_high_as_the_power() -> None:
    lines = power_chart([0.0, 50.0, 100.0], 1800.0)
    columns = ["".join(line[i] for line in lines[:-1]).count("█") for i in range(11, 83)]
    assert columns == [0] * 24 + [4] * 24 + [8] * 24
    assert lines[0].startswith("     100 W")


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    return benchmark("scheduler")


@pytest.mark.slow
def test_benchmark_rows_have_their_names(bench: ModuleType) -> None:
    cell = bench.Cell(load=0.02, slack_s=900, profile_error=0.3, failure_rate=30.0)
    row = bench.measure(cell, "energy-lateness", bench.days_of(cell, [1, 2]))
    names = {"policy", "load", "slack_s", "profile_error", "failure_rate"}
    assert names | {"energy_over_lb", "miss_rate"} <= row.keys()
    assert row["energy_over_lb"] == pytest.approx(1 + sum(row["gap"].values()))
    assert row["gap"]["retry"] > 0
