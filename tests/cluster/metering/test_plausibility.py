"""What a meter may say of its device, and what becomes of one that says something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby

import pytest

from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Device, Reading
from cluster.metering.counter import CounterTrack
from cluster.metering.estimate import GPU_METHOD, GpuEstimate
from cluster.metering.guarded import Guarded, prove
from cluster.metering.plausibility import limits_of
from cluster.metering.source import Refused
from tests.support.meter_worlds import TestClock

GPU = Device("GPU-1", "gpu", "a GPU", "gpu", power_limit_mw=700_000)
Joules = Callable[[float], float]


@dataclass
class Made:
    """A counter of 100 W until the test says otherwise; its device works half of the time."""

    clock: TestClock = field(default_factory=TestClock)
    value_mj: float = 0.0
    watts: float = 100.0
    busy_s: float = 0.0
    device: Device = GPU
    provider: str = "made"

    def __post_init__(self) -> None:
        self.track = CounterTrack("a made counter")

    def read(self) -> Reading:
        return self.track.read(self.clock(), int(self.value_mj))

    def close(self) -> None:
        pass

    def go_on(self, seconds: float, load: float = 0.5) -> None:
        self.clock.now_ns += round(seconds * 1e9)
        self.value_mj += 1e3 * self.watts * seconds
        self.busy_s += load * seconds

    def guarded(self) -> Guarded:
        return Guarded(
            self, limits_of(GPU), lambda: self.busy_s, lambda: GpuEstimate(GPU, self.clock)
        )


def watch(made: Made, source: Guarded, seconds: int) -> list[Reading]:
    readings = []
    for _ in range(seconds):
        made.go_on(1.0)
        readings.append(source.read())
    return readings


def test_a_counter_that_stops_after_an_hour_is_missing_then_estimated() -> None:
    made = Made()
    source = made.guarded()
    assert {reading.quality for reading in watch(made, source, 3600)} == {"measured_counter"}
    made.watts = 0
    later = watch(made, source, 10)
    qualities = [quality for quality, _ in groupby(reading.quality for reading in later)]
    assert qualities == ["missing", "estimated"]
    assert "stood still" in later[-1].method
    assert GPU_METHOD in later[-1].method
    made.watts = 100
    assert {reading.quality for reading in watch(made, source, 60)} == {"estimated"}
    assert (source.provider, source.guarded) == ("gpu-estimate", "made")
    assert isinstance(source.refused, Refused)


def test_the_ledger_has_a_gap_then_the_estimate_and_no_zero() -> None:
    made = Made()
    source, ledger = made.guarded(), Ledger(GPU)
    ledger.read(source.read())
    for watts in (100.0, 0.0):
        made.watts = watts
        for reading in watch(made, source, 30):
            ledger.read(reading)
    rows = ledger.close()
    assert [row.interval.quality for row in rows] == ["measured_counter", "missing", "estimated"]
    assert rows[0].energy_mj == 3_000_000
    assert rows[1].energy_mj is None
    assert len({row.interval.epoch for row in rows}) == 2
    assert "stood still" in rows[2].interval.method


def test_a_pause_that_the_counter_makes_up_for_costs_nothing() -> None:
    made = Made()
    source = made.guarded()
    before = source.read()
    made.watts = 0
    made.go_on(1.5)
    assert source.read().quality == "missing"
    made.watts = 250
    made.go_on(1.5)
    after = source.read()
    assert (after.quality, after.epoch) == ("measured_counter", before.epoch)
    assert (after.energy_mj or 0) - (before.energy_mj or 0) == 375_000


@pytest.mark.parametrize("watts", [0.05, 3_000.0])
def test_far_too_slow_and_far_too_fast_are_given_up(watts: float) -> None:
    made = Made(watts=watts)
    source = made.guarded()
    source.read()
    assert watch(made, source, 6)[-1].quality == "estimated"


def test_a_busy_device_must_draw_more_than_an_idle_one() -> None:
    for load, quality in ((0.0, "measured_counter"), (1.0, "estimated")):
        made = Made(watts=1.0)  # as a board in its deepest sleep may
        source = made.guarded()
        for _ in range(10):
            made.go_on(1.0, load)
            reading = source.read()
        assert reading.quality == quality


def test_a_single_jump_is_a_gap_and_the_third_is_the_last() -> None:
    made = Made()
    source = made.guarded()
    epochs = [source.read().epoch]
    for _ in range(2):
        made.value_mj += 10**9
        made.go_on(1.0)
        reading = source.read()
        assert reading.quality == "measured_counter"
        epochs.append(reading.epoch)
    assert epochs == sorted(set(epochs))
    made.value_mj += 10**9
    made.go_on(1.0)
    assert source.read().quality == "missing"
    assert "jumped" in str(source.refused)


def test_jumps_far_apart_are_forgiven() -> None:
    made = Made()
    source = made.guarded()
    for _ in range(10):
        watch(made, source, 120)
        made.value_mj = 0
    assert source.refused is None


@dataclass
class Constant(Made):
    """Power readings, integrated: the same figure whatever the device does."""

    def read(self) -> Reading:
        return Reading(self.clock(), int(self.value_mj), "measured_power", "power integrated")


def test_exactly_the_same_power_idle_and_busy_is_given_up() -> None:
    made = Constant()
    source = made.guarded()
    for load in (0.0, 1.0):
        for _ in range(20):
            made.go_on(1.0, load)
            reading = source.read()
    assert reading.quality == "estimated"
    assert "exactly the same power" in reading.method


def test_exactly_the_same_power_at_the_same_load_is_believed() -> None:
    made = Constant()
    source = made.guarded()
    for _ in range(200):
        made.go_on(1.0, 1.0)
        assert source.read().quality == "measured_power"


def test_power_that_follows_the_load_is_believed() -> None:
    made = Constant()
    source = made.guarded()
    for second in range(200):
        busy = second // 20 % 2
        made.watts = 60 + busy
        made.go_on(1.0, busy)
        assert source.read().quality == "measured_power"


def test_without_an_estimate_it_stays_missing_and_says_why() -> None:
    made = Made(watts=0)
    source = Guarded(made, limits_of(GPU))
    source.read()
    readings = watch(made, source, 10)
    assert {reading.energy_mj for reading in readings} == {None}
    assert "stood still" in readings[-1].method


def test_at_selection_a_counter_that_moves_is_believed_at_once() -> None:
    for watts, least_s, most_s in ((5.0, 0.25, 0.3), (0.0, 3.0, 3.1)):
        made = Made(watts=watts)
        (refused,) = prove([made.guarded()], made.go_on)
        assert (refused is None) == (watts > 0)
        assert least_s <= made.clock.now_ns / 1e9 <= most_s
