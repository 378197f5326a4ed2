"""Whatever is in the log: sums add up by every key, and null stays null."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.states import ENERGY_BUCKETS
from cluster.storage.open import open_store
from jobs.report.build import Report, build_report
from tests.support.effort import examples
from tests.support.ledgers import row, write_log

ENERGY = st.one_of(st.none(), st.integers(0, 2**40))


@st.composite
def a_row(draw: st.DrawFn) -> dict[str, Any]:
    energy_mj, bucket = draw(ENERGY), draw(st.sampled_from(ENERGY_BUCKETS))
    changes: dict[str, Any] = {
        "host_name": draw(st.sampled_from(("a", "b"))),
        "hw_name": draw(st.sampled_from(("H100", "L4"))),
        "job_id": draw(st.sampled_from((None, "x", "y"))),
        "minutes": draw(st.integers(0, 3 * 24 * 60)),
        "duration_ns": draw(st.integers(0, 10**12)),
        "images": draw(st.one_of(st.none(), st.integers(0, 10**6))),
    }
    if energy_mj is not None and draw(st.booleans()):
        changes |= {
            "quality": "estimated",
            "energy_low_mj": energy_mj // 2,
            "energy_high_mj": energy_mj * 3,
        }
    return row(bucket, energy_mj, **changes)


def reports(rows: list[dict[str, Any]], *dimensions: str) -> list[Report]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as path:
        store = open_store(path, probe=False)
        write_log(store, rows)
        return [build_report(store, by=by) for by in dimensions]


@settings(max_examples=examples(20, fast=4))
@given(st.lists(a_row(), min_size=1, max_size=12))
def test_sums_by_every_key_are_those_of_the_rows(rows: list[dict[str, Any]]) -> None:
    known = [row for row in rows if row["energy_mj"] is not None]
    for report in reports(rows, "job", "node", "hardware", "day"):
        totals = report.totals.model_dump()
        assert report.closure_error_mj == 0
        assert totals["images"] == sum(r["images"] or 0 for r in rows if r["bucket"] == "job")
        for name, column in (("", "energy_mj"), ("_low", "energy_low_mj")):
            least = sum(r[column] if r[column] is not None else r["energy_mj"] for r in known)
            value = totals[f"energy{name}_j"]
            assert value is None or value == least / 1000, name
        assert (totals["energy_j"] is None) == (len(known) < len(rows))
        assert (totals["energy_known_j"] is None) == (not known)
        parts = [r.energy_known_j or 0.0 for r in report.rows]
        assert round(sum(parts) * 1000) == sum(r["energy_mj"] for r in known)
        nulls = [r.energy_j is None for r in report.rows]
        assert any(nulls) == (len(known) < len(rows))


@settings(max_examples=examples(20, fast=5))
@given(st.lists(a_row(), min_size=1, max_size=6))
def test_splitting_rows_changes_nothing(rows: list[dict[str, Any]]) -> None:
    halves = []
    for whole in rows:
        first, second = dict(whole), dict(whole)
        for name in ("energy_mj", "energy_low_mj", "energy_high_mj", "images", "duration_ns"):
            if whole[name] is not None:
                first[name] = whole[name] // 3
                second[name] = whole[name] - first[name]
        halves += [first, second]
    (before,), (after,) = reports(rows, "node"), reports(halves, "node")
    assert before.totals.images == after.totals.images
    for name in ("energy_j", "energy_low_j", "energy_high_j", "j_per_image", "buckets"):
        assert getattr(before.totals, name) == getattr(after.totals, name), name
