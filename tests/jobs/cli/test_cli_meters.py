"""``un0 meters`` as a user runs it, on made-up GPUs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cli import un0, un0_json
from tests.support.nvml_stub import LOST, Gpu, NvmlStub, build_nvml_stub


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NvmlStub:
    """The processes that this test starts see an H100, a board without a counter, one whose
    counter stands still, a lost one."""
    stub = build_nvml_stub(tmp_path)
    stub.add(
        Gpu("GPU-a", rate_mw=90_000),
        Gpu("GPU-old", "Tesla P100-PCIE-16GB", counter_mj=None),
        Gpu("GPU-still"),
        Gpu("GPU-lost", status=LOST),
    )
    for name, value in stub.env().items():
        monkeypatch.setenv(name, value)
    return stub


@pytest.mark.usefixtures("stub")
@pytest.mark.slow
def test_scripts_get_every_device_and_why_nothing_better() -> None:
    report = un0_json("meters")
    gpus = [device for device in report["devices"] if device["hw_type"] == "gpu"]
    assert [(gpu["hw_id"], gpu["provider"], gpu["quality"]) for gpu in gpus] == [
        ("GPU-a", "nvml-counter", "measured_counter"),
        ("GPU-old", "nvml-power", "measured_power"),
        ("GPU-still", "nvml-power", "measured_power"),
    ]
    assert gpus[0]["refused"] == []
    assert gpus[0]["update_period_s"] > 0.05
    assert [refusal["provider"] for refusal in gpus[1]["refused"]] == ["nvml-counter"]
    assert "stood still" in gpus[2]["refused"][0]["reason"]
    assert gpus[2]["refused"][0]["fix"]
    for refusal in [*(r for gpu in gpus for r in gpu["refused"]), *report["notes"]]:
        assert refusal["mend"] == refusal["fix"]  # the earlier key, for scripts
    assert any("lost" in note["reason"] for note in report["notes"])
    assert any(device["hw_type"] == "cpu" for device in report["devices"])


@pytest.mark.usefixtures("stub")
@pytest.mark.slow
def test_people_get_a_table_and_reasons() -> None:
    shown = un0("meters")
    assert shown.returncode == 0, shown.stderr
    rows = [line for line in shown.stdout.splitlines() if "GPU-" in line]
    assert "nvml-counter" in rows[0]
    assert "measured power" in rows[1]
    assert "nvml-counter: NVML does not give the energy counter of this Tesla P100" in shown.stdout
    assert "nvml-counter: nvmlDeviceGetTotalEnergyConsumption stood still for 3 s" in shown.stdout
