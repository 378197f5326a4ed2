"""Whatever a counter does: no measured figure is impossible, and no good counter is refused."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.ledger.reading import Device, Reading
from cluster.metering.counter import CounterTrack
from cluster.metering.estimate import CpuEstimate
from cluster.metering.guarded import Guarded
from cluster.metering.plausibility import SLACK_S, WITHHOLD_S, limits_of
from cluster.metering.rapl_choice import choose_rapl
from cluster.metering.source import Refused
from tests.support.effort import examples
from tests.support.meter_worlds import TestClock
from tests.support.rapl_world import Counter, RaplWorld

PACKAGE = Device("package-0", "cpu", "a CPU", "package")
LIMITS = limits_of(PACKAGE, 200_000, units=8)
IDLE_W, BUSY_W = 0.5, 250.0
WRAP_UJ = 65_532_610_987
loads = st.lists(st.tuples(st.floats(0.001, 12), st.floats(0, 1)), min_size=2, max_size=80)
FAULTS = ("stuck", "slow", "hot", "jumping", "resetting", "stops", "random")


@dataclass
class World:
    """A package that draws as it works, and a counter with a fault, or none."""

    fault: str
    seed: int
    clock: TestClock = field(default_factory=TestClock)
    true_uj: float = 0.0
    shown_uj: float = 0.0
    busy_s: float = 0.0
    device: Device = PACKAGE
    provider: str = "made"

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.shown_uj = self.random.uniform(0, WRAP_UJ)
        self.start_uj = self.shown_uj
        self.stops_ns = self.random.uniform(0, 60e9)
        self.track = CounterTrack("made", 1000, WRAP_UJ)

    def go_on(self, seconds: float, load: float) -> None:
        spent_uj = 1e6 * seconds * (IDLE_W + load * (BUSY_W - IDLE_W))
        self.clock.now_ns += round(seconds * 1e9)
        self.true_uj += spent_uj
        self.busy_s += 8 * load * seconds
        self.shown_uj += spent_uj * self.factor(seconds)
        if self.fault == "jumping" and self.random.random() < 0.3:
            self.shown_uj += self.random.uniform(0, WRAP_UJ)
        if self.fault == "resetting" and self.random.random() < 0.3:
            self.shown_uj = self.random.uniform(0, 1e6)
        if self.fault == "random":
            self.shown_uj = self.random.uniform(0, WRAP_UJ)

    def factor(self, seconds: float) -> float:
        if self.fault == "stuck" or (self.fault == "stops" and self.clock.now_ns > self.stops_ns):
            return 0.0
        return {"slow": 1e-6, "hot": 1e5}.get(self.fault, 1.0) if seconds else 1.0

    def read(self) -> Reading:
        return self.track.read(self.clock(), int(self.shown_uj) % WRAP_UJ)

    def close(self) -> None:
        pass

    def guarded(self) -> Guarded:
        def cpu_s() -> tuple[float, float]:
            return self.busy_s, 8 * self.clock.now_ns / 1e9 - self.busy_s

        return Guarded(
            self, LIMITS, lambda: self.busy_s, lambda: CpuEstimate(cpu_s, self.clock, PACKAGE)
        )


def impossible(readings: list[Reading]) -> list[tuple[Reading, Reading]]:
    """Steps between measured readings that no device of these limits makes."""
    measured = [reading for reading in readings if reading.quality == "measured_counter"]
    return [
        (before, after)
        for i, before in enumerate(measured)
        for after in measured[i + 1 :]
        if before.epoch == after.epoch and not possible(before, after)
    ]


def possible(before: Reading, after: Reading) -> bool:
    seconds = (after.at_ns - before.at_ns) / 1e9
    spent_mj = (after.energy_mj or 0) - (before.energy_mj or 0)
    if seconds > WITHHOLD_S and spent_mj < LIMITS.floor_mw * (seconds - WITHHOLD_S) - 2:
        return False
    works = seconds > WITHHOLD_S + 0.05
    return 0 <= spent_mj <= LIMITS.ceiling_mw * (seconds + SLACK_S) and (spent_mj > 0 or not works)


@given(fault=st.sampled_from(FAULTS), seed=st.integers(0, 2**32), steps=loads)
@settings(deadline=None)
def test_no_measured_step_is_impossible_and_none_is_zero(
    fault: str, seed: int, steps: list[tuple[float, float]]
) -> None:
    world = World(fault, seed)
    source = world.guarded()
    readings = [source.read()]
    for seconds, load in steps:
        world.go_on(seconds, load)
        readings.append(source.read())
    assert impossible(readings) == []
    for before, after in pairwise(readings):
        assert after.epoch >= before.epoch
        if before.quality != after.quality and "missing" not in (before.quality, after.quality):
            assert after.epoch > before.epoch


@given(fault=st.sampled_from(("stuck", "slow", "hot", "stops")), seed=st.integers(0, 2**32))
@settings(deadline=None, max_examples=examples(40))
def test_a_broken_counter_is_found_and_the_estimate_takes_over(fault: str, seed: int) -> None:
    world = World(fault, seed)
    source = world.guarded()
    for _ in range(80):
        world.go_on(1.0, world.random.random())
        reading = source.read()
    assert reading.quality == "estimated"
    assert reading.low_mj is not None
    assert source.refused is not None


@given(seed=st.integers(0, 2**32), steps=loads)
@settings(deadline=None)
def test_a_good_counter_is_never_refused_and_tells_the_truth(
    seed: int, steps: list[tuple[float, float]]
) -> None:
    world = World("none", seed)
    source = world.guarded()
    start = source.read()
    for seconds, load in steps:
        world.go_on(seconds, load)
        reading = source.read()
        assert (reading.quality, reading.epoch) == ("measured_counter", start.epoch)
        assert reading.energy_mj == pytest.approx(world.true_uj / 1e3, abs=2)
    assert source.refused is None


def counter(watts: float, swing: float, phase: float) -> Counter:
    """Of a package whose load goes up and down, unlike that of others."""
    pace = 1 + 10 * phase
    return lambda s: watts * s + swing * watts / pace * (1 - (1 / (1 + pace * s)))


@given(
    watts=st.floats(1, 300),
    apart=st.floats(0.05, 1),
    kinds=st.lists(st.sampled_from(("own", "mirror", "stuck", "hot")), min_size=0, max_size=1),
    dies=st.booleans(),
)
@settings(deadline=None, max_examples=examples(12), suppress_health_check=list(HealthCheck))
def test_a_machine_is_measured_once_or_not_at_all(
    watts: float, apart: float, kinds: list[str], dies: bool
) -> None:
    first = counter(watts, 0.2, apart)
    others: dict[str, Counter] = {
        "own": counter(watts * (1 + apart), 0.1, apart / 2),
        "mirror": lambda s: 77 + first(s),
        "stuck": lambda s: 60_293.0 + 0 * s,
        "hot": lambda s: 50_000 * s,
    }
    names = ("package-0-die-0", "package-0-die-1") if dies else ("package-0", "package-1")
    counters = [first, *(others[kind] for kind in kinds)]
    zones = {f"intel-rapl:{i}": (names[i], counter) for i, counter in enumerate(counters)}
    with TemporaryDirectory() as directory:
        places = {0: (0, 0), 1: (0, 1) if dies else (1, 0)}
        world = RaplWorld(Path(directory), zones, dies=places)
        choices, _ = choose_rapl(world.machine())
        before = [choice.source.read() for choice in choices]
        start_s = world.clock.now_ns / 1e9
        world.go_on(5.0)
        after = [choice.source.read() for choice in choices]
        end_s = world.clock.now_ns / 1e9
        for choice in choices:
            choice.source.close()
        world.close()
    measured = [
        (b.energy_mj or 0) - (a.energy_mj or 0)
        for a, b in zip(before, after, strict=True)
        if b.quality == "measured_counter"
    ]
    real = [first] + [others["own"]] * (kinds == ["own"])
    truth_mj = sum(1e3 * (real_(end_s) - real_(start_s)) for real_ in real)
    assert sum(measured) == pytest.approx(truth_mj, abs=3)
    assert len(choices) == len(zones) - (kinds == ["mirror"])


def test_where_nothing_can_be_believed_rapl_is_refused(tmp_path: Path) -> None:
    world = RaplWorld(tmp_path, {"intel-rapl:0": ("package-0", lambda s: 1e-7 * s)})
    with pytest.raises(Refused):
        choose_rapl(world.machine())
    world.close()
