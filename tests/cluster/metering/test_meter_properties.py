"""Meters, whatever the counter does."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from cluster.ledger.reading import Device, Reading
from cluster.ledger.timeline import Timeline
from cluster.metering.counter import CounterTrack

SECOND_NS = 1_000_000_000
RANGE = 65_532_610_987  # uJ, of a desktop CPU
steps = st.lists(st.integers(0, 500_000_000), min_size=1, max_size=300)  # up to 500 W a second


@given(start=st.integers(0, RANGE - 1), steps=steps)
def test_a_counter_that_wraps_is_charged_what_was_spent(start: int, steps: list[int]) -> None:
    track = CounterTrack("test", units_per_mj=1000, wrap_at=RANGE)
    track.read(0, start)
    spent = 0
    for second, step in enumerate(steps, start=1):
        spent += step
        reading = track.read(second * SECOND_NS, (start + spent) % RANGE)
        assert reading.epoch == 0
        assert reading.energy_mj == spent // 1000


@given(values=st.lists(st.integers(0, 2**63), min_size=1))
def test_whatever_a_counter_does_energy_only_grows_within_an_epoch(values: list[int]) -> None:
    track = CounterTrack("test")
    readings = [track.read(second * SECOND_NS, value) for second, value in enumerate(values)]
    for before, after, first, second in zip(
        readings, readings[1:], values, values[1:], strict=False
    ):
        assert after.epoch == before.epoch + (second < first)
        assert after.energy_mj is not None
        assert before.energy_mj is not None
        if after.epoch == before.epoch:
            assert after.energy_mj - before.energy_mj == second - first


@given(
    totals=st.lists(st.integers(0, 10**12), min_size=1).map(lambda t: [0, *sorted(t)]),
    slices=st.lists(st.integers(1, 4), min_size=1, max_size=7).filter(lambda s: sum(s) <= 7),
)
def test_shares_add_up_over_time_and_never_exceed_the_board(
    totals: list[int], slices: list[int]
) -> None:
    readings = [
        Reading(second, total, "measured_counter", "test") for second, total in enumerate(totals)
    ]
    charged = 0
    for part in slices:
        device = Device("MIG", "gpu", "slice", "gpu", share=Fraction(part, 7))
        often, once = Timeline(device, 0, 0), Timeline(device, 0, 0)
        laps = [lap.energy_mj for lap in map(often.read, readings) if lap is not None]
        (whole,) = filter(None, map(once.read, (readings[0], readings[-1])))
        assert len(laps) == len(readings) - 1
        assert sum(lap or 0 for lap in laps) == whole.energy_mj
        charged += whole.energy_mj or 0
    assert charged <= totals[-1]
