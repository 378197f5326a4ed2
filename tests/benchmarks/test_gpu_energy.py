"""The benchmark of a GPU's meters, on a made-up one: where there is a real one it must work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.nvml_stub import Gpu, build_nvml_stub
from tests.support.stub_node import play

pytestmark = pytest.mark.slow  # meters for seconds, idle and busy
SCRIPT = str(Path(__file__).parents[2] / "benchmarks" / "gpu_energy.py")
WATTS = 50


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    stub = build_nvml_stub(tmp_path_factory.mktemp("nvml"))
    stub.add(Gpu("GPU-a", rate_mw=WATTS * 1000, power_mw=WATTS * 1000, update_ms=20))
    figures: dict[str, Any] = play(
        SCRIPT, stub, "--json", "--device", "cpu", "--seconds", "2", "--batch-s", "1",
        "--batches", "1", "64",
    )  # fmt: skip
    return figures


def test_counter_and_power_are_compared_idle_and_busy(report: dict[str, Any]) -> None:
    assert [part["state"] for part in report["agreement"]] == ["idle", "busy"]
    for part in report["agreement"]:
        assert part["counter_j"] == pytest.approx(WATTS * part["seconds"], rel=0.1)
        assert abs(part["difference"]) < 0.1


def test_each_batch_size_has_its_joules_per_image(report: dict[str, Any]) -> None:
    assert [part["batch"] for part in report["cost"]] == [1, 64]
    for part in report["cost"]:
        assert part["images"] % part["batch"] == 0
        watts = part["j_per_image"] * part["images"] / part["seconds"]
        assert watts == pytest.approx(WATTS, rel=0.1)


def test_the_counter_s_updates_are_seen(report: dict[str, Any]) -> None:
    assert report["update_period_s"] > 0.015  # the median; a busy machine may miss some
