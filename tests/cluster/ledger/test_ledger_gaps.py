"""The ledger when meters fail: what is not known, and for how long."""

from __future__ import annotations

from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Reading
from cluster.types import MISSING_ENERGY
from tests.support.ledger_cases import GPU, S, measured, read, shown, use


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
