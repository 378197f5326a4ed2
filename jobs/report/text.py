"""A report as text for people, and as rows for spreadsheets and data frames."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
from rich.table import Table

from cluster.states import EnergyBucket
from jobs import format
from jobs.format import UNKNOWN, joules
from jobs.report.build import DIMENSIONS, Report
from jobs.report.figures import J_PER_KWH, Bounded, Figures, Row

_BOUNDARY_NAMES = {
    "job": "job alone",
    "marginal": "with overhead and wasted",
    "whole_node": "whole node",
}
Show = Callable[[Any], str]
_SPLIT = {"device J/image": "device_j_per_image{}", "host J/image": "host_j_per_image{}"}
_COLUMNS = ("images", "energy", "job J/image", *_SPLIT, "idle", "wasted", "carbon", "cost")
_WHOLE = {"images", "closure_error_mj"}


def watt_hours(value_j: float | None) -> str:
    """``1.23 kWh``; ``unknown`` for None."""
    if value_j is None:
        return UNKNOWN
    value_wh = value_j / 3600
    for limit, unit in ((1e9, "GWh"), (1e6, "MWh"), (1e3, "kWh"), (1.0, "Wh")):
        if abs(value_wh) >= limit:
            return f"{value_wh / limit:.3g} {unit}"
    return joules(value_j) if value_j else "0 Wh"


def small_wh(value_wh: float | None) -> str:
    """``0.278 Wh``: in this unit whatever its size, as AI Energy Score has it."""
    return UNKNOWN if value_wh is None else f"{value_wh:.3g} Wh"


def kilowatt_hours(value_kwh: float | None) -> str:
    """``watt_hours`` of a figure in kWh."""
    return watt_hours(None if value_kwh is None else value_kwh * J_PER_KWH)


def grams(value_g: float | None) -> str:
    """``1.23 kg``; ``unknown`` for None."""
    if value_g is None:
        return UNKNOWN
    for limit, unit in ((1e6, "t"), (1e3, "kg")):
        if abs(value_g) >= limit:
            return f"{value_g / limit:.3g} {unit}"
    return f"{value_g:.3g} g"


def money(value: float | None, currency: str | None) -> str:
    """``1,234.50 EUR``; ``unknown`` for None."""
    if value is None:
        return UNKNOWN
    return f"{value:,.2f} {currency or ''}".rstrip()


def percent(share: float | None) -> str:
    """``12.3 %``; ``unknown`` for None, ``<0.1 %`` for what is not nothing."""
    if share is None:
        return UNKNOWN
    return "<0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def bounded(figures: Bounded, name: str, show: Show) -> str:
    """A figure such as ``energy{}_j`` with its bounds, if it has them."""
    found = figures.figure(name)
    return format.bounded(found.value, found.low, found.high, show=show)


def bucket_text(figures: Figures, bucket: EnergyBucket) -> str:
    """The energy of one of the buckets, likewise."""
    found = figures.bucket(bucket)
    return format.bounded(found.value, found.low, found.high, show=watt_hours)


def totals_text(report: Report) -> str:
    """The totals, a line each."""
    lines = [f"Energy report of {report.store}"]
    lines += [f"  {name:<10}{text}" for name, text in _lines(report)]
    lines += [f"  note      {note}" for note in report.notes]
    return "\n".join(lines)


def _lines(report: Report) -> Iterator[tuple[str, str]]:
    totals = report.totals
    yield "period", period_text(report)
    yield "images", f"{totals.images:,}"
    yield "energy", f"{bounded(totals, 'energy{}_j', watt_hours)}, {basis(report)}"
    name = "per image"
    for boundary, figures in totals.boundaries.items():
        if figures.j_per_image is not None or figures.j_per_image_low is not None:
            each = bounded(figures, "j_per_image{}", joules)
            per_1000 = bounded(figures, "wh_per_1000_images{}", small_wh)
            yield name, f"{each}, {_BOUNDARY_NAMES[boundary]}; {per_1000} per 1,000 images"
            name = ""
    yield "spent on", ", ".join(_bucket_texts(totals))
    yield "known", ", ".join(f"{name} {percent(value)}" for name, value in totals.share)
    if report.rates.pue is not None:
        facility = bounded(totals, "facility{}_kwh", kilowatt_hours)
        yield "facility", f"{facility} at a PUE of {report.rates.pue:g}"
    if report.rates.intensity is not None:
        sci = bounded(totals, "sci{}_g_per_1000_images", grams)
        carbon = bounded(totals, "carbon{}_g", grams)
        yield "carbon", f"{carbon} CO2e; {sci} per 1,000 images ({intensity_text(report)})"
    if report.rates.price_per_kwh is not None:
        currency = report.rates.currency
        yield "cost", bounded(totals, "cost{}", lambda value: money(value, currency))
    if report.closure_error_mj is not None:
        yield "closure", f"rows and meters differ by {report.closure_error_mj:,} mJ"


def _bucket_texts(totals: Figures) -> Iterator[str]:
    known = totals.buckets_known
    whole = sum(value or 0.0 for value in known.values())
    for bucket, value in known.items():
        if value:
            yield f"{bucket} {percent(value / whole)}"
        elif value is None:
            yield f"{bucket} {UNKNOWN}"


def basis(report: Report) -> str:
    """What the totals include, in words."""
    if report.source == "commits":
        return "of committed shards alone"
    files = "one file" if report.files == 1 else f"{report.files:,} files"
    return f"everything metered, from {files} of the energy log"


def period_text(report: Report) -> str:
    """From when to when, in UTC."""
    first, last = report.days
    if first is None:
        return "nothing recorded"
    return f"{first} to {last} (UTC)" if first != last else f"{first} (UTC)"


def intensity_text(report: Report) -> str:
    """Where the carbon intensity comes from."""
    intensity = report.rates.intensity
    if intensity is None:
        return "none"
    figure = intensity.constant_g_per_kwh
    parts = ["" if figure is None else f"{figure:g} g/kWh", intensity.source]
    parts.append(str(intensity.year or ""))
    return ", ".join(part for part in parts if part)


def rows_table(report: Report) -> Table:
    """The rows of ``--by``."""
    table = Table(box=None, padding=(0, 2), header_style="dim")
    table.add_column(str(report.by), no_wrap=True)  # job ids and owners are for pasting
    for column in _COLUMNS:
        if column not in _absent_columns(report):
            table.add_column(column, justify="right")
    for row in report.rows:
        table.add_row(*_cells(report, row))
    return table


def _absent_columns(report: Report) -> set[str]:
    absent = set() if report.rates.intensity is not None else {"carbon"}
    absent |= set() if report.rates.price_per_kwh is not None else {"cost"}
    if report.by and DIMENSIONS[report.by] == DIMENSIONS["job"]:
        absent.add("idle")  # is nobody's
    absent |= set() if report.by == "encoding" else set(_SPLIT)
    return absent | ({"idle", "wasted"} if report.source == "commits" else set())


def _cells(report: Report, row: Row) -> Iterator[str]:
    absent = _absent_columns(report)
    yield "(no job)" if row.key is None else row.key
    yield f"{row.images:,}"
    yield bounded(row, "energy{}_j", watt_hours)
    yield bounded(row.boundaries["job"], "j_per_image{}", joules) if row.images else "-"
    for column, name in _SPLIT.items():
        if column not in absent:
            own = row.figure(name)
            yield "-" if own.value is own.low is None else bounded(row, name, joules)
    for column, share in (("idle", row.idle_share), ("wasted", row.wasted_share)):
        if column not in absent:
            yield percent(share)
    if "carbon" not in absent:
        yield bounded(row, "carbon{}_g", grams)
    if "cost" not in absent:
        yield bounded(row, "cost{}", lambda value: money(value, report.rates.currency))


def flat_table(report: Report) -> pa.Table:
    """The rows of ``--by``, or the totals as one row, without nesting: for CSV and Parquet.

    Names of nested figures are joined by '_': ``buckets_idle``, ``boundaries_marginal_energy_j``.
    """
    rows = report.rows if report.by else [report.totals]
    flat = [dict(_flattened(row.model_dump())) for row in rows]
    names = list(flat[0]) if flat else ["key", *dict(_flattened(report.totals.model_dump()))]
    schema = pa.schema([(name, _type(name)) for name in names])
    table = pa.Table.from_pylist(flat, schema)
    return table.rename_columns([report.by if n == "key" else n for n in names])


def as_csv(report: Report) -> bytes:
    sink = io.BytesIO()
    pacsv.write_csv(flat_table(report), sink, pacsv.WriteOptions(quoting_style="needed"))
    return sink.getvalue()


def as_parquet(report: Report) -> bytes:
    sink = io.BytesIO()
    pq.write_table(flat_table(report), sink, compression="zstd")
    return sink.getvalue()


def _flattened(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, part in value.items():
        if isinstance(part, Mapping):
            yield from _flattened(part, f"{prefix}{name}_")
        else:
            yield f"{prefix}{name}", part


def _type(name: str) -> pa.DataType:
    if name == "key":
        return pa.string()
    return pa.int64() if name in _WHOLE else pa.float64()
