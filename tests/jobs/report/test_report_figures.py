"""The figures of a report, against sums worked out by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from jobs.report.build import NO_JOB_FILE, UNLABELLED, Report, ReportView, build_report
from jobs.report.carbon import constant, parse_carbon
from jobs.report.figures import Rates
from jobs.report.rows import Period
from tests.support import jobfactory
from tests.support.ledgers import EPYC, H100, START, row, write_log, write_spec

# A minute each of one H100: 12 J in all, for 4 images
NODE_1 = [
    row("job", 6_000, images=4, job_id="one", energy_active_mj=4_000),
    row("overhead", 1_000, job_id="one", energy_active_mj=500, minutes=1),
    row("wasted", 2_000, images=1, job_id="one", energy_active_mj=1_500, minutes=2),
    row("idle", 3_000, energy_active_mj=0, minutes=3),
]
CPU = {"host_name": "node-2", "hw_id": "host", "hw_name": EPYC, "hw_type": "cpu"}
ESTIMATE = row(
    "job", 10_000, quality="estimated", energy_low_mj=5_000, energy_high_mj=20_000, images=10,
    job_id="two", **CPU,
)  # fmt: skip


@pytest.fixture
def store(memory_dir: Path) -> ObjectStore:
    return open_store(str(memory_dir), probe=False)


def report_of(store: ObjectStore, rows: list[Any], **options: Any) -> Report:
    write_log(store, rows)
    return build_report(store, **options)


def by_key(report: Report) -> dict[str | None, dict[str, Any]]:
    return {row.key: row.model_dump() for row in report.rows}


def test_totals_are_what_the_log_adds_up_to(store: ObjectStore) -> None:
    totals = report_of(store, NODE_1).view().model_dump(mode="json")
    assert totals["source"] == "ledger"
    assert totals["images"] == 4, "those of a lost attempt are not kept"
    assert totals["energy_j"] == totals["energy_known_j"] == 12
    assert totals["j_per_image"] == 3
    assert totals["wh_per_1000_images"] == pytest.approx(3 / 3.6)
    assert totals["buckets"] == {
        "job": 6, "overhead": 1, "wasted": 2, "idle": 3, "foreign": 0, "gap": 0,
    }  # fmt: skip
    assert totals["closure_error_mj"] == 0
    assert totals["share"] == {"measured": 1, "estimated": 0, "missing": 0}
    assert totals["idle_share"] == 0.25
    assert totals["wasted_share"] == pytest.approx(1 / 6)
    assert totals["it_kwh"] == pytest.approx(12 / 3.6e6)
    assert totals["facility_kwh"] is totals["carbon_g"] is totals["cost"] is None
    assert totals["energy_low_j"] is totals["energy_high_j"] is None, "measured: no bounds"


def test_boundaries_take_in_more_and_more(store: ObjectStore) -> None:
    boundaries = report_of(store, NODE_1).totals.model_dump()["boundaries"]
    each = {name: (b["energy_j"], b["j_per_image"]) for name, b in boundaries.items()}
    assert each == {"job": (6, 1.5), "marginal": (9, 2.25), "whole_node": (12, 3)}
    active = {name: b["energy_active_j"] for name, b in boundaries.items()}
    assert active == {"job": 4, "marginal": 6, "whole_node": 6}


def test_joules_per_image_are_a_ratio_of_sums(store: ObjectStore) -> None:
    rows = [row("job", 10_000, images=10), row("job", 10_000, images=1, minutes=1)]
    assert report_of(store, rows).totals.j_per_image == pytest.approx(20 / 11)


def test_an_estimate_bounds_every_figure_it_is_in(store: ObjectStore) -> None:
    rates = Rates(constant(500), pue=1.5, price_per_kwh=0.2)
    report = report_of(store, [*NODE_1, ESTIMATE], by="hardware", rates=rates)
    totals = report.totals.model_dump()
    assert [totals[f"energy{b}_j"] for b in ("", "_low", "_high")] == [22, 17, 32]
    assert [totals[f"j_per_image{b}"] for b in ("", "_low", "_high")] == pytest.approx(
        [22 / 14, 17 / 14, 32 / 14]
    )
    for name, per_joule in (
        ("it{}_kwh", 1 / 3.6e6),
        ("facility{}_kwh", 1.5 / 3.6e6),
        ("carbon{}_g", 1.5 * 500 / 3.6e6),
        ("sci{}_g_per_1000_images", 1.5 * 500 / 3.6e6 / 14 * 1000),
        ("cost{}", 1.5 * 0.2 / 3.6e6),
    ):
        values = [totals[name.format(b)] for b in ("", "_low", "_high")]
        assert values == pytest.approx([22 * per_joule, 17 * per_joule, 32 * per_joule]), name
    assert totals["share"] == pytest.approx(
        {"measured": 12 / 22, "estimated": 10 / 22, "missing": 0}
    )
    rows = by_key(report)
    assert (rows[EPYC]["energy_low_j"], rows[EPYC]["energy_high_j"]) == (5, 20)
    assert rows[H100]["energy_low_j"] is None
    assert totals["buckets_low"]["job"] == 11
    assert totals["buckets_low"]["idle"] is None


def test_an_estimate_without_bounds_leaves_the_sum_without(store: ObjectStore) -> None:
    totals = report_of(store, [*NODE_1, ESTIMATE | {"energy_high_mj": None}]).totals.model_dump()
    assert totals["energy_j"] == 22
    assert totals["energy_low_j"] is totals["energy_high_j"] is None


def test_what_is_missing_makes_its_sums_unknown_and_no_others(store: ObjectStore) -> None:
    gap = row("gap", None, host_name="node-3", hw_id="GPU-3", duration_ns=80 * 10**9)
    rates = Rates(constant(500), price_per_kwh=1.0)
    report = report_of(store, [*NODE_1, gap], by="node", rates=rates)
    totals = report.totals.model_dump()
    for name in ("energy_j", "j_per_image", "wh_per_1000_images", "carbon_g", "cost", "it_kwh"):
        assert totals[name] is None, name
    assert totals["energy_known_j"] == 12
    assert (totals["energy_low_j"], totals["energy_high_j"]) == (12, None), "at least what is known"
    assert totals["buckets"]["gap"] is None
    assert totals["buckets"]["job"] == 6
    assert totals["boundaries"]["marginal"]["j_per_image"] == 2.25
    assert totals["boundaries"]["whole_node"]["energy_j"] is None
    assert totals["share"]["missing"] == pytest.approx(80 / (4 * 60 + 80))
    assert sum(totals["share"].values()) == pytest.approx(1)
    assert report.closure_error_mj == 0
    rows = by_key(report)
    assert rows["node-1"]["energy_j"] == 12
    assert rows["node-3"]["energy_j"] is rows["node-3"]["energy_known_j"] is None
    assert any("missing" in note for note in report.notes)


def test_unknown_active_energy_is_not_taken_for_none(store: ObjectStore) -> None:
    rows = [*NODE_1, row("idle", 500, minutes=4)]
    boundaries = report_of(store, rows).totals.boundaries
    assert boundaries["marginal"].energy_active_j == 6
    assert boundaries["whole_node"].energy_active_j is None


def test_rows_that_do_not_add_up_to_the_meters_show(store: ObjectStore) -> None:
    write_log(store, NODE_1, error_mj=7)
    assert build_report(store).closure_error_mj == 7
    later = Period(START + timedelta(seconds=90))
    assert build_report(store, period=later).closure_error_mj == 7, "of whole files"


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("job", {"two": 10, "one": 9, "lost": 4, None: 3}),
        ("owner", {"ann": 19, NO_JOB_FILE: 4, None: 3}),
        ("model", {"m/b": 10, "m/a": 9, NO_JOB_FILE: 4, None: 3}),
        ("label", {"team=x": 19, "kind=test": 10, NO_JOB_FILE: 4, None: 3}),
        ("encoding", {"raw/zstd": 10, "png": 9, NO_JOB_FILE: 4, None: 3}),
        ("node", {"node-1": 12, "node-2": 14}),
        ("hardware", {H100: 12, EPYC: 14}),
        ("day", {"2026-01-01": 22, "2026-01-02": 4}),
    ],
)
def test_rows_by_anything(by: str, expected: dict[str | None, float], store: ObjectStore) -> None:
    write_spec(store, "one", owner="ann", model="m/a", team="x")
    write_spec(store, "two", owner="ann", model="m/b", encoding="raw", team="x", kind="test")
    other = row("job", 4_000, job_id="lost", ts_start=START + timedelta(days=1), **CPU)
    report = report_of(store, [*NODE_1, ESTIMATE, other], by=by)
    assert {row.key: row.energy_j for row in report.rows} == expected
    if by == "day":
        assert [row.key for row in report.rows] == sorted(expected)  # type: ignore[type-var]
    else:
        energies = [row.energy_j for row in report.rows if row.key is not None]
        assert energies == sorted(energies, reverse=True), "the most first"


def test_an_encoding_has_the_joules_of_its_device_and_of_the_cpus_beside_it(
    store: ObjectStore,
) -> None:
    """On a node with a GPU the ledger charges CPUs too; on one without the CPUs are the device."""
    beside = row("job", 500, quality="estimated", energy_low_mj=200, energy_high_mj=1_000,
                 job_id="one", hw_id="package-0", hw_name=EPYC, hw_type="cpu")  # fmt: skip
    second_socket = row("job", 2_000, job_id="two", **CPU | {"hw_id": "package-1"})
    unmetered = row("job", 3_000, images=1, job_id="three", host_name="node-3")
    for job_id, encoding in (("one", "png"), ("two", "raw"), ("three", "jpeg")):
        write_spec(store, job_id, owner="ann", model="m", encoding=encoding)
    rows = by_key(
        report_of(store, [*NODE_1, beside, ESTIMATE, second_socket, unmetered], by="encoding")
    )
    png, raw, jpeg = rows["png"], rows["raw/zstd"], rows["jpeg"]
    assert (png["device_j_per_image"], png["device_j_per_image_low"]) == (1.5, None)
    host = [png[f"host_j_per_image{bound}"] for bound in ("_low", "", "_high")]
    assert host == [0.05, 0.125, 0.25]
    assert (raw["device_j_per_image"], raw["host_j_per_image"]) == (1.2, None)
    assert (jpeg["device_j_per_image"], jpeg["host_j_per_image"]) == (3, None), "nobody metered it"
    assert rows[None]["device_j_per_image"] is rows[None]["host_j_per_image"] is None
    assert "device_j_per_image" not in build_report(store, by="job").rows[0]


def test_a_host_that_one_of_two_nodes_meters_is_not_known(store: ObjectStore) -> None:
    beside = row("job", 500, job_id="one", hw_id="package-0", hw_name=EPYC, hw_type="cpu")
    unmetered = row("job", 3_000, images=1, job_id="one", host_name="node-3")
    write_spec(store, "one", owner="ann", model="m")
    png = by_key(report_of(store, [*NODE_1, beside, unmetered], by="encoding"))["png"]
    assert png["device_j_per_image"] == 9 / 5
    assert png["host_j_per_image"] is png["host_j_per_image_high"] is None
    assert png["host_j_per_image_low"] == 0.1, "at least that"


def test_a_job_without_labels(store: ObjectStore) -> None:
    write_spec(store, "one", owner="ann", model="m")
    assert set(by_key(report_of(store, NODE_1, by="label"))) == {UNLABELLED, None}


def test_a_period_takes_the_rows_that_begin_in_it(store: ObjectStore) -> None:
    write_log(store, NODE_1)
    since, until = START + timedelta(minutes=1), START + timedelta(minutes=3)
    report = build_report(store, period=Period(since, until))
    assert report.totals.energy_j == 3
    assert report.totals.buckets["idle"] == 0
    assert report.closure_error_mj == 0
    nothing = build_report(store, period=Period(START + timedelta(days=1)))
    assert nothing.totals.images == 0
    assert nothing.totals.energy_j is None, "nobody looked: unknown, not 0"
    assert "Nothing was recorded" in nothing.notes[0]


def test_carbon_follows_the_hour(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "grid.csv"
    path.write_text("t,g\n2026-01-01T00:00Z,100\n2026-01-01T01:00Z,300\n2026-01-01T02:00Z,0\n")
    kwh_mj = 3_600_000_000
    rows = [
        row("job", kwh_mj, images=1, job_id="one", duration_ns=3600 * 10**9),
        row("idle", 2 * kwh_mj, minutes=59, duration_ns=1800 * 10**9),  # its middle is at 1:14
        row("idle", kwh_mj, minutes=125),
    ]
    rates = Rates(parse_carbon(str(path)), pue=2.0, embodied_g=50.0)
    report = report_of(store, rows, by="job", rates=rates)
    assert report.totals.carbon_g == pytest.approx(2 * (100 + 2 * 300 + 0))
    assert report.totals.sci_g_per_1000_images == pytest.approx((1400 + 50) * 1000)
    assert by_key(report)["one"]["carbon_g"] == pytest.approx(200)


def test_carbon_of_a_time_without_intensity_is_unknown(store: ObjectStore, tmp_path: Path) -> None:
    path = tmp_path / "grid.csv"
    path.write_text("t,g\n2026-01-01T00:00Z,360\n")
    rows = [row("job", 10_000_000, images=1), row("idle", 5, minutes=61)]
    report = report_of(store, rows, rates=Rates(parse_carbon(str(path))))
    assert report.totals.carbon_g is None
    assert report.totals.carbon_low_g == pytest.approx(1), "what is covered"
    assert any("does not cover" in note for note in report.notes)


def test_a_store_without_a_log_is_reported_from_its_commits(store: ObjectStore) -> None:
    jobfactory.write_job(store, jobfactory.workload("job"))  # 20 images, four estimates of 3 J
    report = build_report(store, by="owner", rates=Rates(constant(100), pue=1.2))
    totals = report.view().model_dump(mode="json")
    assert totals["source"] == "commits"
    assert totals["boundary"] == "job"
    assert "From commits: no idle, overhead or wasted figures" in totals["notes"][0]
    assert (totals["images"], totals["energy_j"]) == (20, 12)
    assert (totals["j_per_image_low"], totals["j_per_image_high"]) == pytest.approx((0.2, 1.8))
    assert totals["buckets"]["job"] == 12
    unknown = ("overhead", "wasted", "idle", "foreign", "gap")
    assert all(totals["buckets"][bucket] is None for bucket in unknown)
    assert totals["idle_share"] is totals["wasted_share"] is totals["closure_error_mj"] is None
    assert totals["boundaries"]["marginal"]["j_per_image"] is None
    assert totals["carbon_g"] == pytest.approx(12 / 3.6e6 * 1.2 * 100)
    assert [(row.key, row.images) for row in report.rows] == [("tester", 20)]
    none = build_report(store, period=Period(datetime(2030, 1, 1, tzinfo=UTC)))
    assert (none.totals.images, none.totals.energy_j) == (0, None)


def test_an_empty_store_has_nothing_to_report(store: ObjectStore) -> None:
    report = build_report(store, by="job", panels=True)
    assert report.rows == []
    assert report.totals.energy_j is None
    assert report.totals.share.model_dump() == {
        "measured": None,
        "estimated": None,
        "missing": None,
    }


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({"pue": 0.9}, r"--pue 0\.9: a facility takes at least"),
        ({"pue": float("nan")}, "--pue nan"),
        ({"price_per_kwh": -1.0}, r"--price -1\.0: give a number of 0 or more"),
        ({"embodied_g": float("inf")}, "--embodied inf"),
    ],
)
def test_impossible_rates_are_refused(rates: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rates(**rates)  # type: ignore[arg-type]


def test_an_unknown_dimension_is_refused(store: ObjectStore) -> None:
    with pytest.raises(UserError, match="'hardwear' is not known; did you mean 'hardware'"):
        build_report(store, by="hardwear")
    with pytest.raises(UserError, match="choose one of job, owner, label, node, hardware"):
        build_report(store, by="zzz")


def test_the_json_reads_back_as_the_report(store: ObjectStore) -> None:
    view = report_of(store, [*NODE_1, ESTIMATE], by="node").view()
    assert ReportView.model_validate_json(view.model_dump_json()) == view
