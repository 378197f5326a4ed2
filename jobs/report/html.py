"""The report as one HTML file that works offline: no script, no request, light, dark, printable."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from cluster.states import ENERGY_BUCKETS, EnergyBucket
from jobs.format import joules
from jobs.report.build import Report
from jobs.report.cells import (
    bounded,
    bucket_energy,
    count,
    figure,
    section,
    table,
    tile,
)
from jobs.report.figures import Figures
from jobs.report.panels import Panels
from jobs.report.sections import (
    by_hardware,
    by_rows,
    heaviest_jobs,
    most_wasteful_nodes,
    over_time,
)
from jobs.report.svg import stacked_bar
from jobs.report.text import (
    grams,
    intensity_text,
    kilowatt_hours,
    money,
    percent,
    period_text,
    small_wh,
    watt_hours,
)

_BUCKET_WORDS = {
    "job": "made images that were kept",
    "overhead": "loading, warm-up, compiling, calibration",
    "wasted": "attempts that were lost or thrown away",
    "idle": "nobody used the device",
    "foreign": "somebody else's process",
    "gap": "nobody knows whose",
}
_BOUNDARY_WORDS = {
    "job": ("Job alone", "what made the images"),
    "marginal": ("Marginal", "job, overhead and wasted: spent because of the work"),
    "whole_node": ("Whole node", "every bucket: all that was metered"),
}


def page(report: Report) -> str:
    """The page. The report must have been built with its panels."""
    if report.panels is None:
        raise ValueError("the report has no panels; build it with panels=True")
    template = files("jobs.report").joinpath("templates", "report.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        title=f"Energy report, {escape(period_text(report))}",
        heading=_heading(report),
        subtitle=escape(report.store),
        body="\n".join(_body(report, report.panels)),
        footer=f"Made {report.made_at:%Y-%m-%d %H:%M} UTC by un0 report. Days are UTC. Joules per "
        "image are a ratio of sums. No figure here is an MLPerf result.",
    )


def _body(report: Report, panels: Panels) -> Iterator[str]:
    yield _tiles(report)
    yield _where(report)
    yield _three_ways(report)
    if panels.timeline:
        yield over_time(panels)
    if panels.hardware:
        yield by_hardware(panels)
    if panels.jobs:
        yield heaviest_jobs(panels)
    if panels.nodes and report.source == "ledger":
        yield most_wasteful_nodes(panels)
    if report.by:
        yield by_rows(report, report.by)
    yield _how_known(report)


def _heading(report: Report) -> str:
    days = [date.fromisoformat(day) for day in report.days if day is not None]
    if not days:
        return "Nothing recorded"
    first, last = (f"{day.day} {day:%B %Y}" for day in days)
    if first[-5:] == last[-5:]:
        first = first[:-5]
    return last if days[0] == days[1] else f"{first} to {last}"


def _tiles(report: Report) -> str:
    totals, rates = report.totals, report.rates
    whose = "job alone" if report.boundary == "job" else "whole node"
    per_1000 = bounded(totals, "wh_per_1000_images{}", small_wh)
    tiles = [
        tile(
            f"Energy per image, {whose}",
            bounded(totals, "j_per_image{}", joules),
            f"{per_1000} per 1,000 images{_missing_time(totals)}",
            "hero",
        ),
        tile("Energy", bounded(totals, "energy{}_j", watt_hours), _facility(report)),
        tile("Images", figure("images", totals.images, count), "kept"),
    ]
    for name, share, words in (
        ("idle", totals.idle_share, "nobody used the device"),
        ("wasted", totals.wasted_share, "in lost attempts"),
    ):
        if share is not None:
            tiles.append(tile(name.capitalize(), figure(f"{name}_share", share, percent), words))
    if rates.intensity is not None:
        sci = bounded(totals, "sci{}_g_per_1000_images", grams)
        value = bounded(totals, "carbon{}_g", grams)
        tiles.append(tile("Carbon, CO2e", value, f"{sci} per 1,000 images"))
    if rates.price_per_kwh is not None:
        price = f"{rates.price_per_kwh:g} {escape(rates.currency or '')} per kWh"
        tiles.append(tile("Cost", bounded(totals, "cost{}", _money(report)), price))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _missing_time(totals: Figures) -> str:
    share = totals.share.missing
    return f"; {figure('share.missing', share, percent)} of the time is missing" if share else ""


def _facility(report: Report) -> str:
    if report.rates.pue is None:
        return "of the metered devices"
    facility = bounded(report.totals, "facility{}_kwh", kilowatt_hours)
    return f"{facility} at a PUE of {report.rates.pue:g}"


def _where(report: Report) -> str:
    known_j = report.totals.buckets_known
    whole_j = sum(value or 0.0 for value in known_j.values())

    def share(bucket: EnergyBucket) -> str:
        value = known_j[bucket]
        return percent(None if value is None else value / whole_j if whole_j else 0.0)

    bar = stacked_bar({b: v or 0.0 for b, v in known_j.items()}, "Energy by bucket", 22)
    buckets = table(
        "buckets",
        [("Bucket", "key"), ("", "wide"), ("Energy", "n"), ("Share", "n")],
        [
            (
                bucket,
                [
                    f'<i class="dot {bucket}"></i>{bucket}',
                    _BUCKET_WORDS[bucket],
                    bucket_energy(report.totals, bucket),
                    share(bucket),
                ],
            )
            for bucket in ENERGY_BUCKETS
        ],
    )
    lead = "Every millijoule that a meter saw is in exactly one bucket."
    if report.source == "commits":
        lead = "Only what committed shards took is known: the store has no energy log."
    return section("Where it went", lead, bar + buckets)


def _three_ways(report: Report) -> str:
    rows = []
    for name, (title, words) in _BOUNDARY_WORDS.items():
        own, at = report.totals.boundaries[name], f"boundaries.{name}."
        cells = [
            f"{title}<small>{words}</small>",
            bounded(own, "energy{}_j", watt_hours, at),
            figure(f"{at}energy_active_j", own.energy_active_j, watt_hours),
            bounded(own, "j_per_image{}", joules, at),
            bounded(own, "wh_per_1000_images{}", small_wh, at),
        ]
        rows.append((name, cells))
    columns = [("Boundary", "key"), ("Energy", "n"), ("Above idle", "n wide")]
    columns += [("J per image", "n"), ("Wh per 1,000", "n wide")]
    lead = "The same images, charged with more and more of what surrounds them."
    return section("Where to draw the line", lead, table("boundaries", columns, rows))


def _how_known(report: Report) -> str:
    share = {name: value or 0.0 for name, value in report.totals.share}
    legend = "".join(
        f'<li><i class="dot {name}"></i>{name} {figure(f"share.{name}", value, percent)}</li>'
        for name, value in report.totals.share
    )
    facts = list(report.notes)
    if report.rates.intensity is not None:
        facts.append(f"Carbon intensity, location-based: {intensity_text(report)}.")
    if report.closure_error_mj is not None:
        facts.append(f"Rows and meters differ by {report.closure_error_mj:,} mJ.")
    notes = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    return section(
        "How it is known",
        "Missing is of time, because its energy is unknown; the rest is divided by energy.",
        f'{stacked_bar(share, "How the energy is known", 22)}<ul class="legend">{legend}</ul>'
        f'<ul class="notes">{notes}</ul>',
    )


def _money(report: Report) -> Any:
    return lambda value: money(value, report.rates.currency)
