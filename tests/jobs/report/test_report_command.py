"""``un0 report`` as users and scripts run it."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import duckdb
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from cluster.storage.open import open_store
from jobs.cli.main import app
from tests.support import jobfactory
from tests.support.cli import un0, un0_json
from tests.support.ledgers import fleet, row, write_log

RATES = ("--carbon", "DE", "--pue", "1.2", "--price", "0.3", "--currency", "EUR")


@pytest.fixture
def store(memory_dir: Path) -> str:
    write_log(open_store(str(memory_dir), probe=False), fleet(3))
    return str(memory_dir)


def test_scripts_get_one_object(store: str) -> None:
    report = un0_json("report", "--store", store, "--by", "node", *RATES)
    assert report["closure_error_mj"] == 0
    assert report["energy_j"] == pytest.approx(sum(report["buckets"].values()))
    assert report["j_per_image"] == report["energy_j"] / report["images"]
    assert report["wh_per_1000_images"] == pytest.approx(report["j_per_image"] * 0.27778, rel=1e-4)
    assert sum(report["share"].values()) == pytest.approx(1)
    kwh = report["energy_j"] / 3.6e6 * 1.2
    assert report["carbon_g"] == pytest.approx(kwh * 380.95)
    assert report["carbon_intensity"]["year"] == 2023
    assert report["cost"] == pytest.approx(kwh * 0.3)
    assert {row["key"] for row in report["rows"]} == {"gpu-01", "gpu-02", "gpu-03", "cpu-01"}
    assert sum(row["energy_j"] for row in report["rows"]) == pytest.approx(report["energy_j"])
    same = un0("report", "--store", store, "--by", "node", *RATES, "--format", "json")
    again = json.loads(same.stdout)
    assert again.keys() == report.keys()
    for exact in ("images", "energy_j", "buckets"):  # whole millijoules: no order of addition
        assert again[exact] == report[exact]


def test_people_get_a_table_in_which_no_estimate_is_bare(store: str) -> None:
    shown = un0("report", "--store", store, "--by", "hardware", *RATES).stdout
    assert "rows and meters differ by 0 mJ" in shown
    assert "Germany, Ember, Yearly Electricity Data, 2023" in shown
    (estimated,) = [line for line in shown.splitlines() if "EPYC" in line]
    assert estimated.count(" to ") == 4, "energy, J/image, carbon and cost"
    (measured,) = [line for line in shown.splitlines() if "H100" in line]
    assert " to " not in measured


def test_a_missing_part_is_not_passed_over(memory_dir: Path) -> None:
    write_log(
        open_store(str(memory_dir), probe=False),
        [row("job", 7_200_000, images=1000), row("gap", None, minutes=1)],
    )
    shown = un0("report", "--store", str(memory_dir)).stdout
    assert "energy    at least 2 Wh" in shown
    assert "missing 50.0 %" in shown
    assert "7.2 J, job alone; 2 Wh per 1,000 images" in shown
    assert "at least 7.2 J, whole node" in shown


def test_spreadsheets_and_data_frames_get_rows(store: str, tmp_path: Path) -> None:
    report = un0_json("report", "--store", store, "--by", "day")
    text = un0("report", "--store", store, "--by", "day", "--format", "csv").stdout
    from_csv = pacsv.read_csv(io.BytesIO(text.encode()))
    path = tmp_path / "new" / "report.parquet"
    done = un0("report", "--store", store, "--by", "day", "--format", "parquet", "--out", str(path))
    assert done.stdout.strip() == str(path)
    from_parquet = pq.read_table(path)
    assert from_csv.column_names == from_parquet.column_names
    for name in ("energy_j", "boundaries_marginal_j_per_image", "buckets_idle", "images"):
        assert from_csv[name].to_pylist() == pytest.approx(from_parquet[name].to_pylist())
    assert from_parquet["energy_j"].to_pylist() == [row["energy_j"] for row in report["rows"]]
    days = duckdb.sql(f"select day from '{path}' order by 1").fetchall()
    assert days == [("2026-01-01",), ("2026-01-02",), ("2026-01-03",)]


def test_days_are_included_and_moments_are_not(store: str) -> None:
    days = un0_json("report", "--store", store, "--since", "2026-01-02", "--until", "2026-01-02")
    assert (days["first_day"], days["last_day"]) == ("2026-01-02", "2026-01-02")
    assert days["until"] == "2026-01-03T00:00:00+00:00"
    hours = ("--since", "2026-01-02T01:00+01:00", "--until", "2026-01-03T00:00Z")
    assert un0_json("report", "--store", store, *hours)["energy_j"] == days["energy_j"]


def test_a_store_without_a_log_says_so(memory_dir: Path) -> None:
    jobfactory.write_job(open_store(str(memory_dir), probe=False), jobfactory.workload())
    shown = un0("report", "--store", str(memory_dir), "--by", "job").stdout
    assert "From commits: no idle, overhead or wasted figures" in shown
    assert "12 J (4 J to 36 J), of committed shards alone" in shown
    assert "600 mJ (200 mJ to 1.8 J), job alone" in shown


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--since", "2026-13-01"], "--since '2026-13-01' is not a day or a moment; write 2026-01"),
        (["--until", "soon"], "--until 'soon' is not a day"),
        (["--since", "9999-12-31"], "--since '9999-12-31' is not a day"),
        (["--since", "2026-02-01", "--until", "2026-01-01"], "is not before --until 2026-01-01"),
        (["--by", "team"], "--by 'team' is not known; choose one of job"),
        (["--format", "pdf"], "--format 'pdf' is not known; choose one of table, json"),
        (["--format", "parquet"], "--out report.parquet"),
        (["--pue", "0.5"], "--pue 0.5: a facility takes at least"),
        (["--carbon", "Atlantis"], "--carbon 'Atlantis' is no number, file or known region"),
        (["--price", "-1"], "--price -1.0: give a number of 0 or more"),
        (["--format", "csv", "--out", "/dev/null/x"], "cannot write /dev/null/x"),
    ],
)
def test_bad_input_is_named_with_its_mend(args: list[str], message: str, store: str) -> None:
    with pytest.raises(UserError, match=re.escape(message)):
        app(["report", "--store", store, *args], standalone_mode=False)


def test_bad_input_ends_in_one_line(store: str) -> None:
    done = un0("report", "--store", store, "--pue", "0.5")
    assert done.returncode == 2
    assert done.stderr.startswith("error: --pue 0.5")
    assert "Traceback" not in done.stderr
