"""Reports from real stores: the same figures everywhere, and only what is needed is read."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Fatal
from cluster.ledger.reader import EnergyFile
from cluster.storage.layout import EnergyKey
from cluster.storage.object_store import ObjectStore
from jobs.report import build as report_module
from jobs.report.build import DIMENSIONS, build_report
from jobs.report.rows import Period, log_files
from tests.support.ledgers import START, fleet, row, write_log

DAYS = 4
SECOND_DAY = Period(START + timedelta(days=1), START + timedelta(days=2))


def test_every_dimension_adds_up_to_the_total(store: ObjectStore) -> None:
    rows = list(fleet(DAYS))
    write_log(store, rows)
    known_mj = sum(row["energy_mj"] or 0 for row in rows)
    images = sum(row["images"] or 0 for row in rows)
    for by in DIMENSIONS:
        report = build_report(store, by=by)
        assert report.closure_error_mj == 0
        assert report.totals.images == sum(row.images for row in report.rows) == images
        assert report.totals.energy_known_j == known_mj / 1000
        parts = [row.energy_known_j for row in report.rows]
        assert sum(parts) == pytest.approx(known_mj / 1000)


def test_the_latest_version_of_a_file_counts(store: ObjectStore) -> None:
    (old,) = write_log(store, [row("job", 1_000, images=1)])
    newer = old.replace("-000000.parquet", "-000001.parquet")
    write_log(store, [row("job", 1_000, images=1), row("job", 2_000, images=1, minutes=1)])
    store.put(newer, store.get(old))
    write_log(store, [row("job", 1_000, images=1)])
    assert newer != old
    report = build_report(store)
    assert (report.totals.energy_j, report.totals.images, report.files) == (3, 2, 1)


def test_a_day_opens_only_that_days_files(store: ObjectStore) -> None:
    rows = list(fleet(DAYS))
    keys = write_log(store, rows)
    for key in keys:
        if "date=2026-01-02" not in key:
            store.put(key, b"whoever reads this fails")
    report = build_report(store, period=SECOND_DAY, by="node")
    energy_mj = [r["energy_mj"] for r in rows if r["ts_start"].date() == SECOND_DAY.since.date()]
    assert report.totals.energy_known_j == sum(filter(None, energy_mj)) / 1000
    assert report.files == 4, "one of each node"
    assert report.days == ("2026-01-02", "2026-01-02")
    assert report.closure_error_mj == 0
    with pytest.raises(Fatal, match=r"energy log of .* cannot be read"):
        build_report(store)


def test_a_day_reads_only_that_days_bytes(local: ObjectStore) -> None:
    counter = Path("/proc/self/io")
    if not counter.exists():
        pytest.skip("this system does not count the bytes a process reads")
    write_log(local, fleet(10))
    build_report(local, period=SECOND_DAY)  # whatever is read once, at first use

    def read_bytes(**options: Any) -> int:
        before = int(counter.read_text().split()[1])
        build_report(local, by="hardware", **options)
        return int(counter.read_text().split()[1]) - before

    assert 0 < 8 * read_bytes(period=SECOND_DAY) < read_bytes(), "one day of ten"


def test_a_file_replaced_meanwhile_is_looked_for_again(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(store, [row("job", 1_000, images=1)])
    name = EnergyKey(START.date(), "node-1", "0123456789abcdef", 0, 99)
    gone = EnergyFile(name.key, name.day, 1000, name.host)
    listings = [[gone]]

    def outdated(*args: Any) -> list[EnergyFile] | None:
        return listings.pop() if listings else log_files(*args)

    monkeypatch.setattr(report_module, "log_files", outdated)
    assert build_report(store).totals.energy_j == 1
    assert not listings
