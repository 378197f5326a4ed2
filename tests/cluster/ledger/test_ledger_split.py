"""The ledger's division: who is charged how much of a device."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Device, Reading
from cluster.types import Energy
from tests.support.ledger_cases import GPU, S, measured, read, shown, use


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


def test_a_use_must_make_sense() -> None:
    with pytest.raises(ValueError, match="a ends before it starts"):
        use(5, 4)
    for fraction in (0.0, -1.0, 1.5):
        with pytest.raises(ValueError, match=f"gpu_fraction is {fraction}"):
            replace(use(0, 1), gpu_fraction=fraction)
