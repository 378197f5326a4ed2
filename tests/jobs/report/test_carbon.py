"""Carbon intensities: a number, a region, a file that varies with time."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.errors import UserError
from jobs.report.carbon import Span, parse_carbon
from jobs.report.carbon_regions import REGIONS

HOUR_US = 3_600_000_000
NEW_YEAR_US = 1_767_225_600_000_000  # 2026-01-01T00:00Z


def test_a_number_holds_always() -> None:
    intensity = parse_carbon("212.5")
    assert intensity.constant_g_per_kwh == 212.5
    assert intensity.slot_us is None
    assert parse_carbon("0").constant_g_per_kwh == 0


@pytest.mark.parametrize("text", ["DE", "de", "Germany", " germany "])
def test_a_region_comes_with_its_source_and_year(text: str) -> None:
    intensity = parse_carbon(text)
    assert intensity.constant_g_per_kwh == 380.95
    assert intensity.year == 2023
    assert "Ember" in intensity.source


def test_regions_are_unique_and_plausible() -> None:
    names = [name.lower() for region in REGIONS for name in (region.code, region.name)]
    assert len(set(names)) == len(names) - 1, "only World is its own code"
    assert all(20 < region.g_per_kwh < 800 for region in REGIONS)


CSV = """time,g_per_kwh
2026-01-01T01:00:00Z,200
2026-01-01T00:00:00Z,100
2026-01-01T05:00:00+01:00,400
2026-01-01 05:00:00,500
"""
SPANS = [
    (0, 1, 100.0),
    (1, 2, 200.0),  # two hours later there is nothing: it does not hold until then
    (4, 5, 400.0),
    (5, 6, 500.0),
]


@pytest.mark.parametrize("kind", ["csv", "more columns", "other names", "parquet"])
def test_a_file_holds_hour_by_hour(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("a.parquet" if kind == "parquet" else "a.csv")
    if kind == "parquet":
        times = [NEW_YEAR_US + hour * HOUR_US for hour, _, _ in SPANS]
        stamps = pa.array(times, pa.timestamp("us", tz="UTC"))
        pq.write_table(pa.table({"a": stamps, "b": [g for _, _, g in SPANS]}), path)
    elif kind == "more columns":
        lines = [line.replace(",", ",x,") for line in CSV.splitlines()]
        path.write_text("\n".join(lines))
    else:
        names = 'Datetime (UTC),"gCO2 ""life cycle"""'
        path.write_text(CSV.replace("time,g_per_kwh", names) if kind == "other names" else CSV)
    intensity = parse_carbon(str(path))
    assert intensity.spans == tuple(
        Span(NEW_YEAR_US + a * HOUR_US, NEW_YEAR_US + b * HOUR_US, g) for a, b, g in SPANS
    )
    assert intensity.slot_us == HOUR_US
    assert intensity.constant_g_per_kwh is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("germny", "'germny'.*did you mean.*Germany"),
        ("XX", "'XX'.*regions: world, EU, AE"),
        ("-3", r"-3\.0 g/kWh is not an intensity; give 0 to 5000"),
        ("nan", "nan g/kWh"),
        ("380950", "380950.0 g/kWh"),
        ("nowhere.csv", r"nowhere\.csv: no such file; give g/kWh, a CSV"),
    ],
)
def test_what_is_no_intensity_is_refused(text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_carbon(text)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "call those to use time and g_per_kwh"),
        ("time,g_per_kwh\n", "no rows; write lines of time,g_per_kwh"),
        ("a,b,c\n1,2,3\n", "has the columns a, b, c: call those to use time and g_per_kwh"),
        ("time,g_per_kwh\nyesterday,3\n", "cannot be read.*2026-01-31T14:00:00Z,212.5"),
        ("time,g_per_kwh\n2026-01-01,\n2026-01-02,5\n", "an empty cell"),
        ("time,g_per_kwh\n2026-01-01,-5\n", r"-5\.0 g/kWh is not an intensity"),
        ("time,g_per_kwh\n2026-01-01,5\n2026-01-01,6\n", "two rows for 2026-01-01 00:00:00 UTC"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(content: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "grid.csv"
    path.write_text(content)
    with pytest.raises(UserError, match=f"(?s)grid.csv.*{message}"):
        parse_carbon(str(path))
