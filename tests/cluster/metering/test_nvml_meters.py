"""NVIDIA GPUs: the real nvidia-ml-py on a stand-in for the driver's library."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from ctypes.util import find_library
from fractions import Fraction
from itertools import groupby
from pathlib import Path

import pynvml
import pytest

from cluster.energy import sum_energy
from cluster.metering.check import checks_of
from cluster.metering.nvml import list_gpus
from cluster.metering.nvml_sources import NvmlCounter, NvmlPower
from cluster.metering.period import update_period_s
from cluster.metering.select import choose_gpu, choose_machine
from cluster.metering.source import Refused
from tests.support.laps import Laps, between
from tests.support.meter_worlds import TestClock
from tests.support.nvml_stub import (
    LOST,
    UNKNOWN_ERROR,
    Gpu,
    Mig,
    NvmlStub,
    Process,
    StubProcess,
    build_nvml_stub,
)

H100, L4 = "NVIDIA H100 80GB HBM3", "NVIDIA L4"
FLEET = (
    Gpu("GPU-a", H100, counter_mj=10),
    Gpu("GPU-b", H100, counter_mj=20),
    Gpu("GPU-c", L4, counter_mj=30, limit_mw=72_000),
    Gpu("GPU-d", L4, counter_mj=None, power_mw=50_000, limit_mw=72_000),
)
NOWHERE = Path("/nowhere")
RATE_MW = 60_000


def alive(stub: NvmlStub, *uuids: str) -> None:
    """From now on the boards draw power, as real ones always do."""
    for uuid in uuids or ("GPU-a", "GPU-b", "GPU-c"):
        stub.set(uuid, rate_mw=RATE_MW)


@pytest.fixture(scope="module")
def nvml_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubProcess]:
    process = StubProcess(build_nvml_stub(tmp_path_factory.mktemp("nvml")))
    yield process
    process.close()


@pytest.fixture
def on_fleet(nvml_process: StubProcess) -> Callable[[Callable[[NvmlStub], None]], None]:
    """Runs a scene in a process that sees two H100s and two L4s, one of which has no counter."""
    return lambda scene: nvml_process.run(play, scene)


def play(scene: Callable[[NvmlStub], None]) -> None:
    stub = NvmlStub.of_this_process()
    stub.add(*FLEET)
    scene(stub)
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()  # whatever the scene opened, it closed


Scene = Callable[[Callable[[NvmlStub], None]], None]


def test_each_gpu_is_charged_its_own_energy(on_fleet: Scene) -> None:
    on_fleet(each_its_own)


def each_its_own(stub: NvmlStub) -> None:
    sources = [NvmlCounter(uuid) for uuid in ("GPU-a", "GPU-b", "GPU-c")]
    meters = {source.device.hw_id: Laps(source) for source in sources}
    for spent_mj, uuid in enumerate(meters, start=5):
        stub.spend(uuid, spent_mj)
    laps = [meter.lap() for meter in meters.values()]
    assert [lap.energy_mj for lap in laps] == [5, 6, 7]
    assert {lap.quality for lap in laps} == {"measured_counter"}
    assert [source.device.hw_name for source in sources] == [H100, H100, L4]
    for meter in meters.values():
        meter.close()


def test_a_reset_opens_an_epoch_and_loses_nothing_to_a_negative(on_fleet: Scene) -> None:
    on_fleet(reset)


def reset(stub: NvmlStub) -> None:
    source = NvmlCounter("GPU-a")
    stub.spend("GPU-a", 100)
    before = source.read()
    stub.set("GPU-a", counter_mj=3)
    after = source.read()
    stub.spend("GPU-a", 40)
    later = source.read()
    assert (before.energy_mj, before.epoch) == (100, 0)
    assert (after.energy_mj, after.epoch) == (0, 1)
    assert between(before, after).energy_mj is None
    assert between(after, later).energy_mj == 40
    source.close()


def test_a_counter_that_was_away_is_whole_when_it_is_back(on_fleet: Scene) -> None:
    on_fleet(outage)


def outage(stub: NvmlStub) -> None:
    source = NvmlCounter("GPU-a")
    start = source.read()
    stub.spend("GPU-a", 7)
    stub.set("GPU-a", status=UNKNOWN_ERROR)
    during = source.read()
    stub.spend("GPU-a", 9)
    stub.set("GPU-a", status=0)
    back = source.read()
    assert during.energy_mj is None
    assert "NVML" in during.method
    assert between(start, back).energy_mj == 16  # it went on counting
    source.close()


def test_a_lost_gpu_is_missing_and_the_others_go_on(on_fleet: Scene) -> None:
    on_fleet(one_lost)


def one_lost(stub: NvmlStub) -> None:
    lost, well = Laps(NvmlCounter("GPU-a")), Laps(NvmlCounter("GPU-b"))
    stub.set("GPU-a", status=LOST)
    stub.spend("GPU-b", 11)
    laps = [lost.lap(), well.lap()]
    assert [lap.energy_mj for lap in laps] == [None, 11]
    assert sum_energy(laps).energy_mj is None
    gone, *rest = list_gpus()
    assert isinstance(gone, Refused)
    assert "GPU 0" in gone.reason
    assert "lost" in gone.reason
    assert rest == ["GPU-b", "GPU-c", "GPU-d"]
    lost.close()
    well.close()


def test_without_a_counter_power_is_integrated(on_fleet: Scene) -> None:
    on_fleet(power)


def power(stub: NvmlStub) -> None:
    clock = TestClock()
    source = NvmlPower("GPU-d", clock, period_s=None)
    clock.now_ns = 1_000_000_000
    stub.set("GPU-d", power_mw=70_000)
    reading = source.read()
    assert reading.energy_mj == 60_000  # (50 + 70) / 2 W over a second
    assert reading.quality == "measured_power"
    clock.now_ns = 60_000_000_000  # nobody sampled for a minute
    assert source.read().epoch == reading.epoch + 1
    source.close()


def test_power_is_sampled_between_readings(on_fleet: Scene) -> None:
    on_fleet(sampled)


def sampled(_: NvmlStub) -> None:
    sampled_often = threading.Event()
    now_ns = 0

    def clock() -> int:
        nonlocal now_ns
        now_ns += 1_000_000
        if now_ns >= 20_000_000:
            sampled_often.set()
        return now_ns

    source = NvmlPower("GPU-d", clock, period_s=0.001)
    assert sampled_often.wait(60)
    assert (source.read().counter_updates or 0) >= 19
    source.close()
    assert not any("GPU-d" in thread.name for thread in threading.enumerate())


def test_the_best_provider_is_chosen_and_the_better_are_explained(on_fleet: Scene) -> None:
    on_fleet(choices)


def choices(stub: NvmlStub) -> None:
    alive(stub)
    stub.set("GPU-b", counter_mj=None, power_mw=None)
    stub.add(Gpu("GPU-e", "NVIDIA Riddle", counter_mj=None, power_mw=None, limit_mw=None))
    stub.add(Gpu("GPU-f", "Tesla T4", counter_mj=None, power_mw=None, limit_mw=None))
    meters = choose_machine(NOWHERE)
    chosen = {c.source.device.hw_id: c for c in meters.choices}
    assert {uuid: choice.source.provider for uuid, choice in chosen.items()} == {
        "GPU-a": "nvml-counter",
        "GPU-b": "gpu-estimate",
        "GPU-c": "nvml-counter",
        "GPU-d": "nvml-power",
        "GPU-e": "missing",
        "GPU-f": "gpu-estimate",
        "cpu": "cpu-estimate",
    }
    assert chosen["GPU-a"].refused == ()
    assert [r.provider for r in chosen["GPU-d"].refused] == ["nvml-counter"]
    assert "energy counter" in chosen["GPU-d"].refused[0].reason
    refused = [r.provider for r in chosen["GPU-e"].refused]
    assert refused == ["nvml-counter", "nvml-power", "gpu-estimate"]
    assert chosen["GPU-b"].source.device.power_limit_mw == 700_000  # NVML's
    assert chosen["GPU-f"].source.device.power_limit_mw == 70_000  # the data sheet's
    assert chosen["GPU-a"].source.device.driver_version == "999.1"
    meters.close()


@pytest.mark.slow
def test_a_counter_that_stands_still_is_refused_and_so_is_power_of_nothing(
    on_fleet: Scene,
) -> None:
    on_fleet(still)


def still(stub: NvmlStub) -> None:
    stub.set("GPU-b", power_mw=0)
    meters = choose_machine(NOWHERE)
    chosen = {c.source.device.hw_id: c for c in meters.choices}
    assert chosen["GPU-a"].source.provider == "nvml-power"
    assert chosen["GPU-b"].source.provider == "gpu-estimate"
    assert "stood still" in chosen["GPU-a"].refused[0].reason
    assert ["stood still" in refusal.reason for refusal in chosen["GPU-b"].refused] == [True, True]
    checks = {check.device: check for check in checks_of(meters)}
    assert (checks["GPU-b"].status, checks["GPU-b"].quality) == ("warn", "estimated")
    assert "stood still" in checks["GPU-b"].reason
    assert checks["GPU-b"].fix
    meters.close()


def test_a_counter_that_stops_later_is_missing_then_estimated(on_fleet: Scene) -> None:
    on_fleet(stops)


def stops(stub: NvmlStub) -> None:
    stub.set("GPU-a", rate_mw=RATE_MW, util=100)
    source = choose_gpu("GPU-a").source
    stub.set("GPU-a", rate_mw=0, counter_mj=source.read().energy_mj)  # a reset, and nothing more
    seen = [source.read()]
    while seen[-1].quality != "estimated":
        if seen[-1] != (reading := source.read()):
            seen.append(reading)
    assert [q for q, _ in groupby(reading.quality for reading in seen)] == [
        "measured_counter", "missing", "estimated",
    ]  # fmt: skip
    assert "stood still" in seen[-1].method
    assert source.provider == "gpu-estimate"
    source.close()


def test_how_busy_a_board_is_is_added_up(on_fleet: Scene) -> None:
    on_fleet(busy)


def busy(stub: NvmlStub) -> None:
    clock = TestClock()
    source = NvmlCounter("GPU-a", clock)
    assert source.busy_s() is None  # this driver does not tell
    for util, busy_s in ((50, 0.5), (100, 1.5), (0, 1.5)):
        stub.set("GPU-a", util=util)
        clock.now_ns += 1_000_000_000
        assert source.busy_s() == pytest.approx(busy_s)
    source.close()


def test_closing_one_meter_twice_leaves_the_others_alone(on_fleet: Scene) -> None:
    on_fleet(closed_twice)


def closed_twice(stub: NvmlStub) -> None:
    closed, left = NvmlCounter("GPU-a"), Laps(NvmlCounter("GPU-b"))
    closed.close()
    closed.close()
    stub.spend("GPU-b", 4)
    assert left.lap().energy_mj == 4
    left.close()


def test_a_mig_slice_is_charged_its_share_of_the_board(on_fleet: Scene) -> None:
    on_fleet(mig)


def mig(stub: NvmlStub) -> None:
    stub.add(Mig("MIG-x", "GPU-a", 3), Mig("MIG-y", "GPU-a", 3), Mig("MIG-z", "GPU-a", 1))
    slices = [NvmlCounter(uuid) for uuid in ("MIG-x", "MIG-y", "MIG-z")]
    device = slices[0].device
    assert (device.hw_id, device.hw_parent) == ("MIG-x", "GPU-a")
    assert (device.share, device.shared) == (Fraction(3, 7), True)
    meters = [Laps(source) for source in slices]
    board = Laps(NvmlCounter("GPU-a"))
    parts_mj = 0
    for spent_mj in (1, 1, 1, 5, 1000, 3):
        stub.spend("GPU-a", spent_mj)
        laps = [meter.lap() for meter in meters]
        parts_mj += sum(lap.energy_mj or 0 for lap in laps)
    board_mj = board.lap().energy_mj
    assert board_mj == 1011
    assert board_mj - len(meters) < parts_mj <= board_mj
    assert list_gpus() == ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]  # a slice is no device of its own
    for meter in (*meters, board):
        meter.close()


def test_a_uuid_without_its_prefix_is_found(on_fleet: Scene) -> None:
    on_fleet(bare_uuids)


def bare_uuids(stub: NvmlStub) -> None:
    stub.add(Mig("MIG-x", "GPU-a", 3))
    for bare, found in (("a", "GPU-a"), ("x", "MIG-x")):
        source = NvmlCounter(bare)
        assert source.device.hw_id == found
        source.close()


def test_grace_hopper_is_metered_as_a_module_and_its_cpu_not_again(on_fleet: Scene) -> None:
    on_fleet(grace_hopper)


def grace_hopper(stub: NvmlStub) -> None:
    name = "NVIDIA GH200 480GB"
    alive(stub)
    stub.add(Gpu("GPU-g", name, rate_mw=500_000, power_mw=300_000, module_mw=500_000))
    meters = choose_machine(NOWHERE)
    zones = {c.source.device.hw_id: c.source.device.zone for c in meters.choices}
    assert zones["GPU-g"] == "module"
    assert zones["GPU-a"] == "gpu"
    assert "cpu" not in zones
    assert any("module" in note.reason for note in meters.notes)
    meters.close()
    clock = TestClock()
    power = NvmlPower("GPU-g", clock, period_s=None)
    clock.now_ns = 1_000_000_000
    assert power.read().energy_mj == 500_000
    power.close()


def test_a_gpu_is_metered_by_uuid_or_told_why_not(on_fleet: Scene) -> None:
    on_fleet(by_uuid)


def by_uuid(stub: NvmlStub) -> None:
    alive(stub, "GPU-b")
    source = choose_gpu("GPU-b").source
    assert (source.device.hw_name, source.provider) == (H100, "nvml-counter")
    before_mj = source.read().energy_mj or 0
    stub.spend("GPU-b", 12_300)
    assert 12_300 <= (source.read().energy_mj or 0) - before_mj < 20_000
    source.close()
    unknown = choose_gpu("GPU-elsewhere", "a GPU of some kind")
    assert unknown.source.provider == "missing"
    assert all("GPU-elsewhere" in r.reason for r in unknown.refused[:2])


def test_the_update_period_of_a_counter_is_found_by_watching_it(on_fleet: Scene) -> None:
    on_fleet(periods)


def periods(stub: NvmlStub) -> None:
    clock = TestClock()
    moving, still = NvmlCounter("GPU-a", clock), NvmlCounter("GPU-b", clock)

    def wait(seconds: float) -> None:
        before_ns = clock.now_ns
        clock.now_ns += round(seconds * 1e9)
        if clock.now_ns // 25_000_000 > before_ns // 25_000_000:  # every 25 ms
            stub.spend("GPU-a", 2)

    assert update_period_s(moving, wait=wait) == pytest.approx(0.025)
    assert update_period_s(still, wait=wait) is None
    integrated = NvmlPower("GPU-d", clock, period_s=None)
    assert update_period_s(integrated, wait=wait) is None  # no counter
    for source in (moving, still, integrated):
        source.close()


def test_a_real_clock_moves_a_quantised_counter(on_fleet: Scene) -> None:
    on_fleet(quantised)


def quantised(stub: NvmlStub) -> None:
    stub.set("GPU-a", rate_mw=100_000, update_ms=100)
    source = NvmlCounter("GPU-a")
    reading = source.read()
    while (reading.counter_updates or 0) < 3:
        reading = source.read()
    assert reading.energy_mj is not None
    assert reading.energy_mj >= 3 * 10_000  # 100 W for 100 ms, thrice
    assert reading.energy_mj % 10_000 == 0
    source.close()


def test_without_nvml_it_says_how_to_get_it() -> None:
    if find_library("nvidia-ml"):
        pytest.skip("this machine has the driver")
    with pytest.raises(Refused, match="no libnvidia-ml") as refused:  # no stub in this process
        list_gpus()
    assert "driver" in (refused.value.fix or "")


def test_work_on_the_board_that_is_not_ours_is_foreign(on_fleet: Scene) -> None:
    on_fleet(foreign_work)


OURS, OTHER = 41, 42


def foreign_work(stub: NvmlStub) -> None:
    source = NvmlCounter("GPU-a")
    stub.add(Process("GPU-a", OURS, util=90), Process("GPU-b", OTHER, util=80))
    assert source.foreign_at_work([OURS]) is None  # samples of who knows when
    for stamp_us, theirs, seen in ((2, None, False), (3, 0, False), (4, 70, True), (4, 70, False)):
        stub.set(f"GPU-a/{OURS}", stamp_us=stamp_us)
        if theirs is not None:
            stub.add(Process("GPU-a", OTHER, theirs, stamp_us))
        assert source.foreign_at_work([OURS]) is seen
    stub.set(f"GPU-a/{OTHER}", stamp_us=5)
    assert source.foreign_at_work([OURS, 7]) is None  # 7 must be there: these are another's numbers
    source.close()
    assert source.foreign_at_work([OURS]) is None


def test_without_the_driver_s_report_no_work_is_foreign(on_fleet: Scene) -> None:
    on_fleet(untold)


def untold(stub: NvmlStub) -> None:
    stub.add(Process("GPU-a", OTHER, util=None), Mig("MIG-x", "GPU-b", 3), Process("GPU-b", 1, 9))
    for uuid in ("GPU-a", "MIG-x"):
        source = NvmlCounter(uuid)
        assert [source.foreign_at_work([]) for _ in range(2)] == [None, None]
        source.close()
