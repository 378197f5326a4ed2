"""The ledger, attempt by attempt: who is charged for what, and when that is final."""

from __future__ import annotations

import pytest

from cluster.ledger.ledger import Ledger
from cluster.ledger.merge import merged
from cluster.types import MISSING_ENERGY
from tests.support.ledger_cases import GPU, WORK, S, measured, read, shown, use


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


def test_only_what_follows_on_in_the_same_epoch_is_merged() -> None:
    """Rows of one device from two lives of its meter, and then after a hole."""
    rows = []
    for start_s, epoch in ((0, 0), (10, 1), (30, 1)):
        ledger = Ledger(GPU, first_epoch=epoch)
        read(ledger, (start_s, 0), (start_s + 10, 100))
        rows += ledger.close()
    assert merged(rows) == rows


def test_buckets_are_not_merged() -> None:
    ledger = Ledger(GPU)
    ledger.report(use(0, 10, "pid 17", bucket="foreign", replica_id=""))
    read(ledger, (0, 0), (10, 100), (20, 200))
    assert [row.bucket for row in merged(ledger.close())] == ["foreign", "idle"]


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
