"""For every provider a small world in which its device draws 100 W, on a clock of the test's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.ledger.reading import Device
from cluster.metering.estimate import CpuEstimate, GpuEstimate
from cluster.metering.missing import MissingSource
from cluster.metering.nvml_sources import NvmlCounter, NvmlPower
from cluster.metering.rapl import RaplSource, find_zones
from cluster.metering.source import Source
from cluster.metering.zeus import ZeusSource
from tests.support.nvml_stub import UNKNOWN_ERROR, Gpu, NvmlStub
from tests.support.replay import ReplaySource, load_traces

POWER_MW = 100_000
GPU = Device("GPU-1", "gpu", "a GPU", "gpu", power_limit_mw=POWER_MW)
OUTAGE_S = (50.0, 60.0)  # in the replayed trace


class TestClock:
    """A monotonic clock that the test advances."""

    __test__ = False

    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        return self.now_ns


@dataclass
class World:
    """A source, and what happens to its device. ``on_spend`` moves what the source reads."""

    clock: TestClock
    source: Source
    on_spend: Callable[[float], None] = lambda _: None
    fail: Callable[[], None] | None = None
    restore: Callable[[], None] = lambda: None

    def spend(self, seconds: float) -> None:
        self.clock.now_ns += round(seconds * 1e9)
        self.on_spend(seconds)


def powercap(root: Path, zones: dict[str, str], range_uj: int = 262_143_328_850) -> None:
    """A directory as Linux lays out powercap: {"intel-rapl:0": "package-0", ...}, all at 0 uJ."""
    for directory, name in zones.items():
        path = root / directory
        path.mkdir(parents=True)
        (path / "name").write_text(f"{name}\n")
        (path / "energy_uj").write_text("0\n")
        (path / "max_energy_range_uj").write_text(f"{range_uj}\n")


def nvml_counter(_: Path) -> World:
    stub = _stub()
    clock = TestClock()
    return World(
        clock,
        NvmlCounter("GPU-1", clock),
        lambda seconds: stub.spend("GPU-1", round(POWER_MW * seconds)),
        lambda: stub.set("GPU-1", status=UNKNOWN_ERROR),
        lambda: stub.set("GPU-1", status=0),
    )


def nvml_power(_: Path) -> World:
    stub = _stub()
    clock = TestClock()
    source = NvmlPower("GPU-1", clock, period_s=None)

    def sample(seconds: float) -> None:
        end_ns = clock.now_ns
        for ns in range(end_ns - round(seconds * 1e9), end_ns, 10**9):  # as the thread would
            clock.now_ns = ns
            source.read()
        clock.now_ns = end_ns

    return World(
        clock,
        source,
        sample,
        lambda: stub.set("GPU-1", status=UNKNOWN_ERROR),
        lambda: stub.set("GPU-1", status=0),
    )


def rapl(directory: Path) -> World:
    powercap(directory, {"intel-rapl:0": "package-0"})
    file = directory / "intel-rapl:0" / "energy_uj"
    clock = TestClock()
    total_uj = 0

    def go_on(seconds: float) -> None:
        nonlocal total_uj
        total_uj += round(1e3 * POWER_MW * seconds)
        file.write_text(f"{total_uj}\n")

    return World(
        clock,
        RaplSource(find_zones(directory)[0], clock, poll_s=None),
        go_on,
        lambda: file.write_text("not a number"),
        lambda: go_on(0),
    )


def cpu_estimate(_: Path) -> World:
    clock = TestClock()
    broken = False

    def cpu_s() -> tuple[float, float]:
        if broken:
            raise OSError("no /proc/stat")
        return clock.now_ns / 2e9, clock.now_ns / 2e9

    def turn(value: bool) -> None:
        nonlocal broken
        broken = value

    source = CpuEstimate(cpu_s, clock)
    return World(clock, source, fail=lambda: turn(True), restore=lambda: turn(False))


def gpu_estimate(_: Path) -> World:
    clock = TestClock()
    return World(clock, GpuEstimate(GPU, clock))


def zeus(_: Path) -> World:
    clock = TestClock()
    broken = False

    def read_mj() -> float:
        if broken:
            raise RuntimeError("the driver is gone")
        return 7_000 + POWER_MW * clock.now_ns / 1e9  # since the driver was loaded

    def turn(value: bool) -> None:
        nonlocal broken
        broken = value

    source = ZeusSource(GPU, read_mj, "measured_counter", "test", clock)
    return World(clock, source, fail=lambda: turn(True), restore=lambda: turn(False))


def replay(directory: Path) -> World:
    trace = directory / "trace.jsonl"
    rows: list[dict[str, Any]] = []
    for tick in range(1000):
        t_s = tick / 10
        known = not OUTAGE_S[0] <= t_s < OUTAGE_S[1]
        energy_mj = round(POWER_MW * t_s) if known else None
        rows.append({"t_s": t_s, "device": "GPU-1", "energy_mj": energy_mj})
    trace.write_text("".join(json.dumps(row) + "\n" for row in rows))
    clock = TestClock()

    def jump(to_s: float) -> Callable[[], None]:
        return lambda: setattr(clock, "now_ns", round(to_s * 1e9))

    source = ReplaySource(load_traces(trace)["GPU-1"], clock)
    return World(clock, source, fail=jump(OUTAGE_S[0] + 1), restore=jump(OUTAGE_S[1] + 1))


def nothing(_: Path) -> World:
    clock = TestClock()
    return World(clock, MissingSource(GPU, "nobody knows", clock))


WORLDS: dict[str, Callable[[Path], World]] = {
    "nvml-counter": nvml_counter,
    "nvml-power": nvml_power,
    "rapl": rapl,
    "cpu-estimate": cpu_estimate,
    "zeus": zeus,
    "gpu-estimate": gpu_estimate,
    "replay": replay,
    "missing": nothing,
}


def _stub() -> NvmlStub:
    """The stub that the library of this process plays, with one GPU."""
    stub = NvmlStub.of_this_process()
    stub.add(Gpu("GPU-1", power_mw=POWER_MW))
    return stub
