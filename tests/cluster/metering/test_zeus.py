"""Devices that zeus reads: its real classes, where installed, over stand-ins for the vendors'."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from cluster.metering import select, zeus
from cluster.metering.bench import bench_meter
from cluster.metering.select import choose_cpu, choose_gpu, choose_machine
from cluster.metering.source import Refused
from cluster.metering.zeus import open_zeus, zeus_hardware

NOWHERE = Path("/nowhere")


class AmdSmi(ModuleType):
    """Two GPUs, which the driver lists the other way round than HIP counts them."""

    class AmdSmiException(Exception):
        pass

    class AmdSmiLibraryException(AmdSmiException):
        pass

    class AmdSmiInitFlags:
        INIT_AMD_GPUS = 1

    def __init__(self) -> None:
        super().__init__("amdsmi")
        self.units = {"first": 10**12, "second": 2 * 10**12}
        self.up = False

    def amdsmi_init(self, _: int) -> None:
        self.up = True

    def amdsmi_shut_down(self) -> None:
        self.up = False

    def amdsmi_get_processor_handles(self) -> list[str]:
        return ["first", "second"]

    def amdsmi_get_gpu_enumeration_info(self, handle: str) -> dict[str, int]:
        return {"hip_id": 1 if handle == "first" else 0}

    def amdsmi_get_gpu_asic_info(self, handle: str) -> dict[str, str]:
        return {"market_name": f"AMD Instinct {handle}"}

    def amdsmi_get_power_info(self, _: str) -> dict[str, int]:
        return {"current_socket_power": 100, "average_socket_power": 100}

    def amdsmi_get_power_cap_info(self, _: str) -> dict[str, int]:
        return {"power_cap": 750_000_000}

    def amdsmi_get_energy_count(self, handle: str) -> dict[str, float]:
        assert self.up
        units = self.units[handle] + int(time.monotonic() * 100e6 / 15.3)  # 100 W, as it says
        return {"energy_accumulator": units, "counter_resolution": 15.3}


@pytest.fixture
def amdsmi(monkeypatch: pytest.MonkeyPatch) -> Iterator[AmdSmi]:
    """The real zeus on a machine with two GPUs of AMD's."""
    pytest.importorskip("zeus.device", reason="needs the extra zeus")
    library = AmdSmi()
    monkeypatch.setitem(sys.modules, "amdsmi", library)
    forget()
    monkeypatch.setattr(select, "zeus_hardware", lambda: "amd")
    yield library
    forget()


def forget() -> None:
    zeus._amd_gpus.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "zeus"]:
        del sys.modules[name]


def test_amd_gpus_have_hip_s_indices_whatever_the_process_may_see(
    amdsmi: AmdSmi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "")  # as Ray sets it for an actor without GPUs
    meters = choose_machine(NOWHERE)
    gpus = {c.source.device.hw_id: c.source for c in meters.choices if c.source.provider == "zeus"}
    assert {hw_id: gpu.device.hw_name for hw_id, gpu in gpus.items()} == {
        "zeus:0": "AMD Instinct second",
        "zeus:1": "AMD Instinct first",
    }
    source = choose_gpu("zeus:1").source
    before = source.read()
    amdsmi.units["first"] += 10**6  # 15.3 J
    after = source.read()
    assert (before.quality, after.epoch) == ("measured_counter", before.epoch)
    spent_mj = (after.energy_mj or 0) - (before.energy_mj or 0)
    assert spent_mj == pytest.approx(15_300 + (after.at_ns - before.at_ns) * 1e-4, abs=100)
    assert source.device.power_limit_mw == 750_000
    assert [c.source.provider for c in meters.choices][-1] == "cpu-estimate"  # the host's own


def test_un0_calibrate_and_bench_meter_the_amd_gpu_that_hip_shows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setattr("torch.version.hip", "6.2")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    properties = SimpleNamespace(name="AMD Instinct first", uuid="of-no-use-here")
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda _: properties)
    with bench_meter("cuda") as bench:
        assert bench.device.hw_id == "zeus:1", "whether zeus is installed or not"


@pytest.mark.usefixtures("amdsmi")
def test_an_amd_gpu_that_is_not_there_is_refused_by_name() -> None:
    choice = choose_gpu("zeus:7")
    assert choice.source.provider == "missing"
    assert "zeus:0, zeus:1" in choice.refused[0].reason


def test_where_zeus_is_not_installed_the_mend_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zeus", None)
    for hardware in ("amd", "apple", "jetson"):
        with pytest.raises(Refused) as refused:
            open_zeus(hardware)  # type: ignore[arg-type]
        assert refused.value.fix == "pip install 'un0-cluster[zeus]'"
    monkeypatch.setattr(select, "zeus_hardware", lambda: "amd")
    notes = choose_machine(NOWHERE).notes
    assert any(note.provider == "zeus" and note.fix for note in notes)
    monkeypatch.setattr(select, "zeus_hardware", lambda: "apple")
    (cpu,) = choose_cpu(NOWHERE)
    assert [refusal.provider for refusal in cpu.refused] == ["rapl", "zeus"]


class Chip:
    """What ``get_soc`` gives: figures of zeus, with the names of its measurements' fields."""

    def __init__(self, **figures: float | None) -> None:
        parts = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "dram_mj", "ane_mj", "total_energy_mj")
        self.__dict__ |= dict.fromkeys(parts) | figures

    def get_total_energy_consumption(self) -> Any:
        for part, mj in self.__dict__.items():  # time passes, and no chip draws nothing
            self.__dict__[part] = (
                mj + 1 if mj and part in ("cpu_total_mj", "total_energy_mj") else mj
            )
        return self


def on_chip(monkeypatch: pytest.MonkeyPatch, chip: Chip) -> None:
    """A stand-in for zeus: its classes for these chips run on the chips only."""
    for name in ("zeus", "zeus.device", "zeus.device.soc"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["zeus.device.soc"].__dict__["get_soc"] = lambda: chip


def test_apple_s_chip_is_all_of_its_parts_that_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    chip = Chip(cpu_total_mj=100, gpu_mj=20, dram_mj=3)
    on_chip(monkeypatch, chip)
    monkeypatch.setattr(select, "zeus_hardware", lambda: "apple")
    (choice,) = choose_cpu(NOWHERE)
    device = choice.source.device
    assert (device.hw_id, device.hw_type, device.zone) == ("zeus:soc", "cpu", "module")
    before_mj = choice.source.read().energy_mj or 0
    chip.__dict__["gpu_mj"] += 50
    assert choice.source.read().energy_mj == before_mj + 51
    chip.__dict__["cpu_total_mj"] = None
    assert choice.source.read().energy_mj is None


def test_a_jetson_s_module_is_metered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    on_chip(monkeypatch, Chip(total_energy_mj=7.5))
    for module in (select, zeus):
        monkeypatch.setattr(module, "zeus_hardware", lambda: "jetson")
    (choice,) = choose_machine(NOWHERE).choices  # the CPU is in it
    assert (choice.source.device.zone, choice.source.read().quality) == ("module", "measured_power")
    seated = choose_gpu("GPU-of-torch").source  # as a replica calls it, which NVML does not know
    assert seated.device.hw_id == choice.source.device.hw_id


def test_zeus_is_asked_only_where_there_is_something_for_it(tmp_path: Path) -> None:
    if sys.platform == "darwin":
        pytest.skip("a Mac's hardware is not in files")
    assert zeus_hardware(tmp_path) is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kfd").touch()
    assert zeus_hardware(tmp_path) == "amd"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/nv_tegra_release").touch()
    assert zeus_hardware(tmp_path) == "jetson"
