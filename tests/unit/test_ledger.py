"""The ledger, case by case: who is charged for what, and when nobody is."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from cluster.metering.ledger import Ledger
from cluster.metering.merge import merged
from cluster.metering.reading import Device, Reading
from cluster.metering.usage import EnergyRow, Use, Work
from cluster.types import MISSING_ENERGY, Energy

S = 1_000_000_000
GPU = Device("GPU-1", "gpu", "test gpu", "gpu")
WORK = Work("job", 3, "rev", 16, 32, 32, "fp32")


def use(start_s: float, end_s: float | None, attempt_id: str = "a", **changes: Any) -> Use:
    settings: dict[str, Any] = {"bucket": "job", "replica_id": "r", "work": WORK}
    end_ns = None if end_s is None else int(end_s * S)
    return Use(int(start_s * S), end_ns, attempt_id=attempt_id, **settings | changes)


def read(ledger: Ledger, *said: tuple[float, int | None], epoch: int = 0) -> None:
    for at_s, mj in said:
        known = ("measured_counter", "nvml") if mj is not None else ("missing", "unplugged")
        ledger.read(Reading(int(at_s * S), mj, *known, epoch))  # type: ignore[arg-type]


def shown(rows: list[EnergyRow]) -> list[tuple[str, str | None, float, float, int | None]]:
    """(bucket, attempt, start, end, energy) of each row, in seconds and millijoules."""
    return [
        (r.bucket, r.attempt_id, r.interval.start_ns / S, r.interval.end_ns / S, r.energy_mj)
        for r in rows
    ]


def measured(mj: int) -> Energy:
    return Energy(energy_mj=mj, quality="measured_counter", method="nvml")


def test_an_attempt_between_idle_times() -> None:
    ledger = Ledger(GPU, idle_power_mw=70_000)
    read(ledger, (0, 1000), (5, 351_000))
    ledger.report(use(5, None))
    read(ledger, (10, 3_351_000))
    assert ledger.attempt_energy("a") is None
    ledger.report(use(5, 15, images=640, batch_size=64))
    assert ledger.attempt_energy("a") is None
    read(ledger, (15, 6_351_000), (20, 6_701_000))
    assert ledger.attempt_energy("a") == measured(6_000_000)
    ledger.settle("a", "won")
    rows = ledger.close()
    assert shown(rows) == [
        ("idle", None, 0, 5, 350_000),
        ("job", "a", 5, 15, 6_000_000),
        ("idle", None, 15, 20, 350_000),
    ]
    assert [row.active_mj for row in rows] == [0, 5_300_000, 0]
    assert rows[1].work == WORK
    assert (rows[1].images, rows[1].batch_size, rows[1].shared) == (640, 64, False)


def test_a_killed_replica_wastes_what_it_took_until_its_loss() -> None:
    ledger = Ledger(GPU)
    read(ledger, (0, 0))
    ledger.report(use(0, 10, "load", bucket="overhead"))
    ledger.report(use(10, None))
    read(ledger, (10, 100), (14, 500), (16, 600), (20, 700))
    ledger.lose("r", 16 * S)
    ledger.report(use(18, None, "zombie"))
    assert ledger.attempt_energy("a") == measured(500)
    assert shown(ledger.close()) == [
        ("overhead", "load", 0, 10, 100),
        ("wasted", "a", 10, 16, 500),
        ("idle", None, 16, 20, 100),
    ]


def test_rows_wait_for_the_outcome_and_come_in_order() -> None:
    ledger = Ledger(GPU, grace_s=0, patience_s=100)
    ledger.report(use(0, 5, "slow"))
    ledger.report(use(5, 10, "fast"))
    read(ledger, (0, 0), (5, 50), (10, 90))
    ledger.settle("fast", "won")
    assert ledger.drain() == []
    ledger.settle("slow", "lost")
    ledger.settle("slow", "won")  # its commit turned up after all
    assert shown(ledger.drain()) == [("job", "slow", 0, 5, 50), ("job", "fast", 5, 10, 40)]
    assert ledger.drain() == []


def test_an_attempt_that_nobody_settles_is_lost_in_the_end() -> None:
    ledger = Ledger(GPU, grace_s=0, patience_s=100)
    ledger.report(use(0, 5))
    read(ledger, (0, 0), (5, 50), (104, 60))
    assert ledger.drain() == []
    read(ledger, (106, 70))
    assert shown(ledger.drain()) == [
        ("wasted", "a", 0, 5, 50),
        ("idle", None, 5, 104, 10),
        ("idle", None, 104, 106, 10),
    ]
    read(ledger, (1000, 80), (2000, 90))
    ledger.drain()
    assert ledger.attempt_energy("a") == MISSING_ENERGY, "forgotten, and never a number again"


def test_an_attempt_is_remembered_while_its_rows_wait() -> None:
    """Behind an attempt that takes very long, and shares the device with shorter ones."""
    ledger = Ledger(GPU, grace_s=0, patience_s=100)
    ledger.report(use(0, None, "long", gpu_fraction=0.5))
    ledger.report(use(10, 20, "short", gpu_fraction=0.5, replica_id="q", images=5))
    ledger.settle("short", "won")
    read(ledger, *((at, at * 100) for at in range(0, 1000, 10)))
    assert ledger.drain() == []
    read(ledger, *((at, at * 100) for at in range(1000, 2000, 10)))
    assert ledger.drain() == []
    ledger.report(use(0, 1990, "long"))
    ledger.settle("long", "won")
    short = [row for row in ledger.drain() if row.attempt_id == "short"]
    assert [(row.bucket, row.energy_mj, row.images) for row in short] == [("job", 500, 5)]


def test_old_reports_change_nothing() -> None:
    ledger = Ledger(GPU)
    read(ledger, (0, 0))
    ledger.report(use(0, None))
    ledger.report(use(0, 4, images=8))
    ledger.report(use(0, None))
    ledger.report(use(0, 6, images=800))
    read(ledger, (4, 400), (8, 800))
    assert ledger.attempt_energy("a") == measured(400)
    rows = ledger.close()
    assert shown(rows) == [("wasted", "a", 0, 4, 400), ("idle", None, 4, 8, 400)]
    assert rows[0].images == 8


def test_a_report_from_long_ago_does_not_begin_anew() -> None:
    ledger = Ledger(GPU, grace_s=0, patience_s=100)
    ledger.report(use(0, 4))
    ledger.settle("a", "won")
    read(ledger, (0, 0), (4, 400), (200, 500), (300, 600))
    first = ledger.drain()
    ledger.report(use(0, None))
    read(ledger, (400, 700))
    assert shown(first + ledger.close())[1:] == [
        ("idle", None, 4, 300, 200),
        ("idle", None, 300, 400, 100),
    ]


def test_an_attempt_charged_for_time_after_its_end_has_no_energy_to_show() -> None:
    """Its end was reported when a neighbour's question had already settled that time."""
    ledger = Ledger(GPU)
    ledger.report(use(0, None, "a", gpu_fraction=0.5))
    ledger.report(use(0, 10, "b", gpu_fraction=0.5, replica_id="q"))
    read(ledger, (0, 0), (10, 1000))
    assert ledger.attempt_energy("b") == measured(500)
    ledger.report(use(0, 5, "a", gpu_fraction=0.5))
    assert ledger.attempt_energy("a") == MISSING_ENERGY
    assert sum(row.energy_mj or 0 for row in ledger.close()) == 1000


def test_draining_often_makes_no_short_windows() -> None:
    ledger = Ledger(GPU, grace_s=0)
    rows = []
    for half_seconds in range(13):
        read(ledger, (half_seconds / 2, half_seconds * 50))
        rows += ledger.drain()
    assert shown(rows) == [
        ("idle", None, 0, 2, 200),
        ("idle", None, 2, 4, 200),
        ("idle", None, 4, 6, 200),
    ]


def test_merging_ends_where_something_changes_and_after_a_minute() -> None:
    ledger = Ledger(GPU, grace_s=0)
    ledger.report(use(90, 130, images=40))
    ledger.settle("a", "won")
    rows = []
    for at in range(0, 201, 10):
        read(ledger, (at, at * 100))
        rows += ledger.drain()
    assert len(rows) == 20
    fewer = merged(rows)
    assert shown(fewer) == [
        ("idle", None, 0, 60, 6000),
        ("idle", None, 60, 90, 3000),
        ("job", "a", 90, 130, 4000),
        ("idle", None, 130, 190, 6000),
        ("idle", None, 190, 200, 1000),
    ]
    assert fewer[2].images == 40


def test_images_are_counted_in_the_windows_they_were_made_in() -> None:
    ledger = Ledger(GPU, grace_s=0)
    ledger.report(use(0, 10, images=7))
    ledger.settle("a", "won")
    read(ledger, (0, 0))
    rows = []
    for at in (3, 5, 10):
        read(ledger, (at, at * 10))
        rows += ledger.drain()
    assert [row.images for row in rows] == [2, 1, 4]


def test_after_a_reset_an_epoch_begins_and_the_time_between_is_a_gap() -> None:
    ledger = Ledger(GPU, first_epoch=40)
    ledger.report(use(0, 9))
    read(ledger, (0, 500), (3, 800))
    read(ledger, (6, 10), (9, 310), epoch=1)
    assert ledger.attempt_energy("a") == MISSING_ENERGY
    rows = ledger.close()
    assert shown(rows) == [
        ("wasted", "a", 0, 3, 300),
        ("gap", None, 3, 6, None),
        ("wasted", "a", 3, 6, None),
        ("wasted", "a", 6, 9, 300),
    ]
    assert [row.interval.epoch for row in rows] == [40, 40, 40, 41]
    assert rows[1].interval.quality == "missing"


def test_a_counter_that_goes_back_unannounced_is_no_negative_energy() -> None:
    ledger = Ledger(GPU)
    read(ledger, (0, 500), (3, 100), (6, 400))
    assert shown(ledger.close()) == [("gap", None, 0, 3, None), ("idle", None, 3, 6, 300)]


def test_another_method_is_another_counter() -> None:
    ledger = Ledger(GPU)
    read(ledger, (0, 500))
    ledger.read(Reading(3 * S, 900, "measured_power", "nvml power"))
    assert shown(ledger.close()) == [("gap", None, 0, 3, None)]


def test_an_outage_within_one_use_costs_nothing() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 9))
    read(ledger, (0, 0), (3, 300), (4, None), (5, None), (6, 600), (9, 900))
    assert ledger.attempt_energy("a") == measured(900)
    assert {row[0] for row in shown(ledger.close())} == {"wasted"}


def test_after_an_outage_across_uses_the_total_is_known_but_not_whose_it_was() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 5))
    ledger.report(use(5, 9, "b"))
    ledger.report(use(9, 12, "c"))
    read(ledger, (0, 0), (3, 300), (5, None), (9, 700), (12, 800))
    assert ledger.attempt_energy("a") == ledger.attempt_energy("b") == MISSING_ENERGY
    assert ledger.attempt_energy("c") == measured(100)
    assert shown(ledger.close()) == [
        ("wasted", "a", 0, 3, 300),
        ("gap", None, 3, 9, 400),
        ("wasted", "a", 3, 9, None),
        ("wasted", "b", 3, 9, None),
        ("wasted", "c", 9, 12, 100),
    ]


def test_an_outage_does_not_spoil_what_follows() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(12, 15))
    read(ledger, (0, 0), (3, None), (6, 600), (18, 1800))
    assert shown(ledger.close())[1:] == [("idle", None, 6, 18, 900), ("wasted", "a", 6, 18, 300)]


def test_a_long_outage_is_a_gap_even_if_the_counter_went_on() -> None:
    ledger = Ledger(GPU, outage_s=10)
    read(ledger, (0, 0), (5, None), (11, None), (12, None), (13, 500), (14, 520))
    rows = ledger.close()
    assert shown(rows) == [("gap", None, 0, 13, None), ("idle", None, 13, 14, 20)]
    assert rows[0].interval.epoch != rows[1].interval.epoch


def test_an_outage_that_lasts_shows_before_it_ends() -> None:
    ledger = Ledger(GPU, outage_s=10, grace_s=0)
    read(ledger, (0, 0), (5, None), (11, None), (60, None))
    assert shown(ledger.drain()) == [("gap", None, 0, 60, None)]


def test_where_nothing_can_be_read_everything_is_a_gap() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 5, images=10))
    read(ledger, (0, None), (5, None), (9, None))
    assert ledger.attempt_energy("a") == MISSING_ENERGY
    ledger.settle("a", "won")
    rows = ledger.close()
    assert shown(rows) == [
        ("gap", None, 0, 5, None),
        ("job", "a", 0, 5, None),
        ("gap", None, 5, 9, None),
    ]
    assert [row.images for row in rows] == [None, 10, None]


def test_a_meter_that_takes_over_calls_the_time_since_then_a_gap() -> None:
    """The way to resume a log that broke off: an unknown reading at the moment it did."""
    ledger = Ledger(GPU)
    ledger.read(Reading(-30 * S, None, "missing", "the meter died"))
    read(ledger, (0, 900), (5, 950))
    rows = ledger.close()
    assert shown(rows) == [("gap", None, -30, 0, None), ("idle", None, 0, 5, 50)]
    assert rows[0].interval.method == "the meter died"


def test_a_process_of_somebody_else_gets_what_we_leave() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 6, "pid 17", bucket="foreign", replica_id=""))
    ledger.report(use(3, 9))
    read(ledger, (0, 0), (3, 300), (6, 600), (9, 900), (12, 910))
    rows = ledger.close()
    assert shown(rows) == [
        ("foreign", None, 0, 3, 300),
        ("wasted", "a", 3, 9, 600),
        ("idle", None, 9, 12, 10),
    ]


def test_replicas_that_share_a_device_share_its_energy() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 4, "a", gpu_fraction=0.5))
    ledger.report(use(2, 4, "b", gpu_fraction=0.25, replica_id="q"))
    read(ledger, (0, 0), (2, 100), (4, 200))
    rows = ledger.close()
    assert shown(rows) == [
        ("wasted", "a", 0, 2, 50),
        ("idle", None, 0, 2, 50),
        ("wasted", "a", 2, 4, 50),
        ("wasted", "b", 2, 4, 25),
        ("idle", None, 2, 4, 25),
    ]
    assert all(row.shared for row in rows)


def test_those_who_want_more_than_the_whole_device_get_it_in_proportion() -> None:
    ledger = Ledger(GPU)
    for n in range(3):
        ledger.report(use(0, 4, f"a{n}", replica_id=f"r{n}"))
    read(ledger, (0, 0), (4, 100))
    assert [row[4] for row in shown(ledger.close())] == [34, 33, 33]


def test_asking_for_more_than_the_whole_does_not_make_time_longer() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 6, "a"))
    ledger.report(use(0, 2, "b", replica_id="q"))
    read(ledger, (0, 0), (6, 600))
    assert [row[4] for row in shown(ledger.close())] == [500, 100]


def test_three_thirds_leave_nothing_idle() -> None:
    ledger = Ledger(GPU)
    for n in range(3):
        ledger.report(use(0, 4, f"a{n}", replica_id=f"r{n}", gpu_fraction=1 / 3))
    read(ledger, (0, 0), (4, 10**9))
    assert "idle" not in {row.bucket for row in ledger.close()}


def test_slices_of_a_board_never_exceed_it() -> None:
    """Two slices read one board's counter, which holds odd totals."""
    board = [(0.0, 0), (3.0, 101), (7.0, 1003), (11.0, 3001)]
    total = 0
    for n in range(2):
        ledger = Ledger(Device(f"MIG-{n}", "gpu", "slice", "gpu", "GPU-1", Fraction(1, 2)))
        read(ledger, *board)
        rows = ledger.close()
        assert all(row.shared for row in rows)
        assert sum(row.energy_mj or 0 for row in rows) == 1500
        total += 1500
    assert total <= 3001


def test_without_a_reading_at_its_boundaries_an_attempt_gets_its_share_of_time() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(1, 4))
    read(ledger, (0, 0), (10, 101))
    rows = ledger.close()
    assert shown(rows) == [("idle", None, 0, 10, 71), ("wasted", "a", 0, 10, 30)]
    assert not rows[0].shared, "one after the other is not at the same time"


def test_short_attempts_in_turn_are_charged_by_time_over_two_seconds() -> None:
    """A counter that moves every 100 ms is read after attempts of 50 ms each."""
    ledger = Ledger(GPU, grace_s=0)
    read(ledger, (0, 0))
    for n in range(80):
        ledger.report(use(n * 0.05, (n + 1) * 0.05, f"a{n}"))
        read(ledger, ((n + 1) * 0.05, (n + 1) // 2 * 70_000))
        ledger.settle(f"a{n}", "won")
    assert ledger.attempt_energy("a79") == measured(35_000)
    rows = ledger.drain()
    assert {row.energy_mj for row in rows} == {35_000}
    assert {row.interval.duration_ns for row in rows} == {2 * S}


def test_short_windows_of_different_kinds_stay_apart() -> None:
    """Idle time must not dilute a short burst that the readings set apart."""
    ledger = Ledger(GPU)
    ledger.report(use(1, 1.5))
    read(ledger, (0, 0), (1, 70), (1.5, 420), (2.5, 490))
    assert shown(ledger.close()) == [
        ("idle", None, 0, 1, 70),
        ("wasted", "a", 1, 1.5, 350),
        ("idle", None, 1.5, 2.5, 70),
    ]


@pytest.mark.parametrize("announced", [True, False])
def test_reports_may_be_late_within_grace_or_forever_if_announced(announced: bool) -> None:
    ledger = Ledger(GPU, grace_s=10)
    read(ledger, (0, 0))
    if announced:
        ledger.report(use(0, None))
    read(ledger, *((at, at * 100) for at in range(1, 101)))
    drained = ledger.drain()
    ledger.report(use(0, 100, images=7))
    energy = ledger.attempt_energy("a")
    ledger.settle("a", "won")
    rows = drained + ledger.close()
    assert sum(row.energy_mj or 0 for row in rows) == 10_000
    if announced:
        assert energy == measured(10_000)
        assert {row.bucket for row in rows} == {"job"}
        assert sum(row.images or 0 for row in rows) == 7
    else:
        assert energy == MISSING_ENERGY, "what went to idle is no part of a total"
        assert [row[3:] for row in shown(rows)] == [(90, 9000), (100, 1000)]


def test_a_trifle_of_lateness_is_forgiven() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 4, "a"))
    read(ledger, (0, 0), (4.01, 401))
    assert ledger.attempt_energy("a") is not None
    ledger.report(use(4, None, "b"))  # it had begun while the boundary was read
    read(ledger, (8, 801))
    ledger.report(use(4, 8, "b"))
    assert ledger.attempt_energy("b") == measured(400)


def test_the_time_before_the_first_reading_is_not_known() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 4))
    read(ledger, (2, 0), (4, 400))
    assert ledger.attempt_energy("a") == MISSING_ENERGY
    assert shown(ledger.close()) == [("wasted", "a", 2, 4, 400)]


def test_nothing_is_known_of_an_attempt_nobody_reported() -> None:
    ledger = Ledger(GPU)
    read(ledger, (0, 0), (4, 400))
    assert ledger.attempt_energy("ghost") == MISSING_ENERGY
    ledger.settle("ghost", "won")
    assert ledger.attempt_energy("ghost") == MISSING_ENERGY


def test_outcomes_and_uses_may_come_before_any_reading() -> None:
    ledger = Ledger(GPU)
    ledger.settle("a", "won")
    ledger.report(use(1, 3))
    assert ledger.attempt_energy("a") is None
    read(ledger, (1, 0), (3, 100))
    assert shown(ledger.close()) == [("job", "a", 1, 3, 100)]


def test_bounds_of_an_estimate_add_up_and_stay_in_order() -> None:
    ledger = Ledger(GPU)
    for n, share in enumerate((0.2, 0.3, 0.5)):
        ledger.report(use(0, 7, f"a{n}", replica_id=f"r{n}", gpu_fraction=share))
    for at, mj in ((0, 10), (7, 1011)):
        ledger.read(Reading(at * S, mj, "estimated", "guess", 0, mj // 3, 3 * mj))
    energies = [ledger.attempt_energy(f"a{n}") for n in range(3)]
    rows = ledger.close()
    assert sum(row.energy_mj or 0 for row in rows) == 1001
    assert sum(row.low_mj or 0 for row in rows) == 337 - 3
    assert sum(row.high_mj or 0 for row in rows) == 3003
    for row, energy in zip(rows, energies, strict=True):
        assert row.low_mj is not None
        assert row.energy_mj is not None
        assert row.high_mj is not None
        assert row.low_mj <= row.energy_mj <= row.high_mj
        assert energy == Energy(
            energy_mj=row.energy_mj,
            low_mj=row.low_mj,
            high_mj=row.high_mj,
            quality="estimated",
            method="guess",
        )


def test_bounds_that_rounding_turned_over_wait_for_the_next_reading() -> None:
    ledger = Ledger(GPU)
    for at, mj, low, high in ((0, 10, 3, 30), (1, 10, 4, 31), (2, 12, 4, 36)):
        ledger.read(Reading(at * S, mj, "estimated", "guess", 0, low, high))
    rows = ledger.close()
    assert shown(rows) == [("idle", None, 0, 2, 2)]
    assert (rows[0].low_mj, rows[0].high_mj) == (1, 6)


def test_bounds_that_contradict_the_estimate_are_not_believed() -> None:
    ledger = Ledger(GPU)
    for at, mj, low, high in ((0, 10, 3, 30), (1, 20, 90, 99)):
        ledger.read(Reading(at * S, mj, "estimated", "guess", 0, low, high))
    assert shown(ledger.close()) == [("gap", None, 0, 1, None)]


def test_readings_out_of_order_and_counter_updates() -> None:
    ledger = Ledger(GPU)
    for at, mj, updates in ((0, 0, 0), (5, 500, 40), (4, 480, 38), (5, 501, 41), (9, 900, 80)):
        ledger.read(Reading(at * S, mj, "measured_counter", "nvml", counter_updates=updates))
    rows = ledger.close()
    assert shown(rows) == [("idle", None, 0, 9, 900)]
    assert rows[0].interval.counter_updates == 80


def test_a_use_must_make_sense() -> None:
    with pytest.raises(ValueError, match="a ends before it starts"):
        use(5, 4)
    for fraction in (0.0, -1.0, 1.5):
        with pytest.raises(ValueError, match=f"gpu_fraction is {fraction}"):
            replace(use(0, 1), gpu_fraction=fraction)
