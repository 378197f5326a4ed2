"""What holds for every provider of energy readings alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cluster.energy import sum_energy
from cluster.metering.guarded import Guarded
from cluster.metering.plausibility import limits_of
from tests.support.laps import Laps
from tests.support.meter_worlds import WORLDS, TestClock, World
from tests.support.nvml_stub import StubProcess, build_nvml_stub
from tests.support.replay import ReplaySource, load_traces

Check = Callable[[World], None]
Contract = Callable[[Check], None]
CAN_FAIL = [provider for provider in WORLDS if provider not in ("gpu-estimate", "missing")]


@pytest.fixture(scope="module")
def nvml_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StubProcess]:
    process = StubProcess(build_nvml_stub(tmp_path_factory.mktemp("nvml")))
    yield process
    process.close()


@pytest.fixture(params=WORLDS)
def contract(request: pytest.FixtureRequest, tmp_path: Path) -> Contract:
    """Applies a check to a fresh world of each provider, where its hardware can be made up."""
    provider: str = request.param
    if not provider.startswith("nvml"):
        return lambda check: apply(check, provider, tmp_path)
    process: StubProcess = request.getfixturevalue("nvml_process")
    return lambda check: process.run(apply, check, provider, tmp_path)


def apply(check: Check, provider: str, directory: Path) -> None:
    world = WORLDS[provider](directory)
    assert world.source.provider == provider
    try:
        check(world)
    finally:
        world.source.close()


def test_readings_never_go_back(contract: Contract) -> None:
    contract(readings_never_go_back)


def readings_never_go_back(world: World) -> None:
    last = world.source.read()
    for seconds in (0.0, 0.1, 3.0, 0.1, 12.0):
        world.spend(seconds)
        reading = world.source.read()
        assert reading.at_ns == world.clock.now_ns
        assert reading.epoch == last.epoch
        if reading.energy_mj is not None:
            assert last.energy_mj is not None
            assert reading.energy_mj >= last.energy_mj >= 0
            assert (reading.energy_mj > last.energy_mj) == (seconds > 0)
        last = reading


def test_laps_of_a_window_however_cut_add_up_to_the_window(contract: Contract) -> None:
    contract(laps_add_up)


def laps_add_up(world: World) -> None:
    whole, parts = Laps(world.source), Laps(world.source)
    laps = []
    for seconds in (0.1, 0.2, 7.7, 0.0, 1.3):
        world.spend(seconds)
        laps.append(parts.lap())
    window = whole.lap()
    assert sum_energy(laps).energy_mj == window.energy_mj
    assert sum_energy(laps).low_mj == window.low_mj
    assert sum_energy(laps).high_mj == window.high_mj
    assert (window.energy_mj is None) == (world.source.provider == "missing")


def test_at_constant_power_energy_goes_with_time(contract: Contract) -> None:
    contract(energy_goes_with_time)


def energy_goes_with_time(world: World) -> None:
    meter = Laps(world.source)
    world.spend(2.0)
    once = meter.lap().energy_mj
    world.spend(14.0)
    seven_times = meter.lap().energy_mj
    if once is None or seven_times is None:
        assert once is seven_times is None
        return
    assert abs(seven_times - 7 * once) <= 7  # each reading is rounded down to a millijoule


def test_an_estimate_has_bounds_and_nothing_else_has(contract: Contract) -> None:
    contract(only_estimates_have_bounds)


def only_estimates_have_bounds(world: World) -> None:
    meter = Laps(world.source)
    world.spend(10.0)
    energy = meter.lap()
    if energy.quality == "estimated":
        assert energy.energy_mj is not None
        assert energy.low_mj is not None
        assert energy.high_mj is not None
        assert 0 < energy.low_mj < energy.energy_mj < energy.high_mj
    else:
        assert energy.low_mj is None
        assert energy.high_mj is None


@pytest.mark.parametrize("contract", CAN_FAIL, indirect=True)
def test_an_outage_is_null_and_what_it_is_part_of_too(contract: Contract) -> None:
    contract(outages_are_null)


def outages_are_null(world: World) -> None:
    assert world.fail is not None
    meter = Laps(world.source)
    world.spend(3.0)
    before = meter.lap()
    world.fail()
    during = meter.lap()
    world.restore()
    back = meter.lap()
    world.spend(2.0)
    after = meter.lap()
    assert before.energy_mj is not None
    assert during.energy_mj is None
    assert during.quality == "missing"
    assert back.energy_mj is None  # it holds the rest of the outage
    assert after.energy_mj is not None
    assert sum_energy([before, during, back, after]).energy_mj is None


def test_a_guarded_source_reads_the_same(contract: Contract) -> None:
    contract(guarded_reads_the_same)


def guarded_reads_the_same(world: World) -> None:
    guarded = Guarded(world.source, limits_of(world.source.device))
    for seconds in (0.0, 0.1, 3.0, 0.1, 12.0):
        world.spend(seconds)
        here, bare = guarded.read(), world.source.read()
        assert (here.energy_mj, here.quality, here.epoch) == (
            (bare.energy_mj, bare.quality, bare.epoch)
        )
    assert guarded.refused is None


def test_a_guarded_trace_that_stands_still_is_not_believed(tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    trace.write_text("t_s,device,energy_mj\n0,GPU-1,0\n10,GPU-1,1000000\n60,GPU-1,1000000\n")
    clock = TestClock()
    source = ReplaySource(load_traces(trace)["GPU-1"], clock)
    guarded = Guarded(source, limits_of(source.device))
    seen = []
    for second in range(10, 30):
        clock.now_ns = second * 10**9
        seen.append(guarded.read())
    assert [reading.quality for reading in seen] == ["measured_counter"] + 19 * ["missing"]
    assert "stood still" in seen[-1].method


def test_a_closed_source_reads_missing_and_may_be_closed_again(contract: Contract) -> None:
    contract(closed_is_missing)


def closed_is_missing(world: World) -> None:
    world.source.close()
    world.source.close()
    reading = world.source.read()
    assert reading.energy_mj is None
    assert reading.quality == "missing"
    assert reading.method  # why
