"""The report as one HTML file that works offline: no script, no request, light, dark, printable."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from html import escape
from importlib.resources import files
from string import Template
from typing import Any

from jobs.render import joules
from jobs.report import Report
from jobs.report_cells import (
    Figures,
    bounded,
    bucket_energy,
    count,
    figure,
    section,
    table,
    tile,
)
from jobs.report_panels import Panels
from jobs.report_sums import BUCKETS
from jobs.report_svg import spread_strip, stacked_bar, timeline
from jobs.report_text import (
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
    template = files("jobs").joinpath("templates", "report.html").read_text(encoding="utf-8")
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
        yield _over_time(panels)
    if panels.hardware:
        yield _by_hardware(panels)
    if panels.jobs:
        yield _heaviest(panels)
    if panels.nodes and report.source == "ledger":
        yield _most_wasteful(panels)
    if report.by:
        yield _by(report, report.by)
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
        tile("Images", figure("images", totals["images"], count), "kept"),
    ]
    for name, words in (("idle", "nobody used the device"), ("wasted", "in lost attempts")):
        share = totals[f"{name}_share"]
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
    share = totals["share"]["missing"]
    return f"; {figure('share.missing', share, percent)} of the time is missing" if share else ""


def _facility(report: Report) -> str:
    if report.rates.pue is None:
        return "of the metered devices"
    facility = bounded(report.totals, "facility{}_kwh", kilowatt_hours)
    return f"{facility} at a PUE of {report.rates.pue:g}"


def _where(report: Report) -> str:
    known_j = {b: report.totals["buckets_known"][b] for b in BUCKETS}
    whole_j = sum(value or 0.0 for value in known_j.values())

    def share(bucket: str) -> str:
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
            for bucket in BUCKETS
        ],
    )
    lead = "Every millijoule that a meter saw is in exactly one bucket."
    if report.source == "commits":
        lead = "Only what committed shards took is known: the store has no energy log."
    return section("Where it went", lead, bar + buckets)


def _over_time(panels: Panels) -> str:
    used = [b for b in BUCKETS if any(moment.known_j[b] for moment in panels.timeline)]
    legend = "".join(f'<li><i class="dot {b}"></i>{b}</li>' for b in used)
    numbers = table(
        "timeline",
        [(panels.step, ""), *((bucket, "n") for bucket in used)],
        [
            (
                moment.start.isoformat(),
                [
                    f"{moment.start:%Y-%m-%d %H:%M}",
                    *(figure(f"buckets_known.{b}", moment.known_j[b], watt_hours) for b in used),
                ],
            )
            for moment in panels.timeline
        ],
    )
    return section(
        "Over time",
        f"Energy per {panels.step}, by bucket.",
        f'{timeline(panels.timeline, panels.step)}<ul class="legend">{legend}</ul><details>'
        f'<summary>The numbers</summary><div class="scroll">{numbers}</div></details>',
    )


def _by_hardware(panels: Panels) -> str:
    uppers = (row["boundaries"]["job"]["j_per_image_high"] or 0.0 for row in panels.hardware)
    largest = max(*(spread.highest for spread in panels.spreads.values()), *uppers, 0.0, 0.0)

    def cells(row: Figures) -> list[str]:
        own, spread = row["boundaries"]["job"], panels.spreads.get(row["key"])
        strip = ""
        if spread is not None and own["j_per_image"] is not None and largest:
            low, high = own["j_per_image_low"], own["j_per_image_high"]
            bounds = None if low is None or high is None else (low, high)
            strip = spread_strip(spread, own["j_per_image"], bounds, largest)
        each = bounded(own, "j_per_image{}", joules, "boundaries.job.") if row["images"] else "-"
        name = f"{escape(row['key'])}<small>{count(row['images'])} images</small>"
        return [name, strip, each]

    return section(
        "Joules per image by hardware",
        "Job bucket. Dot: all of its energy over all of its images. Band: where 80% of the images "
        f"lie, job by job and device by device; bar: their median. Dashes: bounds of an "
        f"estimate. From 0 to {joules(largest)}.",
        table(
            "hardware",
            [("Hardware", "key"), ("", "strip"), ("J per image", "n")],
            [(row["key"], cells(row)) for row in panels.hardware],
        ),
    )


def _heaviest(panels: Panels) -> str:
    largest_j = max(_known_j(row) for row in panels.jobs)
    return section(
        "Heaviest jobs",
        "By energy: what their images took, with their overhead and wasted attempts.",
        table(
            "jobs",
            [
                ("Job", "key"),
                ("", "bar wide"),
                ("Energy", "n"),
                ("Images", "n wide"),
                ("J per image", "n"),
            ],
            [
                (
                    row["key"],
                    [
                        escape(row["key"]),
                        _buckets_bar(row, largest_j),
                        bounded(row, "energy{}_j", watt_hours),
                        figure("images", row["images"], count),
                        bounded(row, "j_per_image{}", joules) if row["images"] else "-",
                    ],
                )
                for row in panels.jobs
            ],
        ),
    )


def _most_wasteful(panels: Panels) -> str:
    largest_j = max(_known_j(row) for row in panels.nodes)
    return section(
        "Most wasteful nodes",
        "By energy that was idle or wasted.",
        table(
            "nodes",
            [("Node", "key"), ("", "bar wide"), ("Energy", "n"), ("Idle", "n"), ("Wasted", "n")],
            [
                (
                    row["key"],
                    [
                        escape(row["key"]),
                        _buckets_bar(row, largest_j),
                        bounded(row, "energy{}_j", watt_hours),
                        figure("idle_share", row["idle_share"], percent),
                        figure("wasted_share", row["wasted_share"], percent),
                    ],
                )
                for row in panels.nodes
            ],
        ),
    )


def _by(report: Report, by: str) -> str:
    columns = [
        (by.capitalize(), "key"),
        ("Images", "n wide"),
        ("Energy", "n"),
        ("J per image", "n"),
    ]
    if report.rates.intensity is not None:
        columns.append(("CO2e", "n"))

    def cells(row: Figures) -> list[str]:
        own = row["boundaries"]["job"]
        found = [
            "no job" if row["key"] is None else escape(row["key"]),
            figure("images", row["images"], count),
            bounded(row, "energy{}_j", watt_hours),
            bounded(own, "j_per_image{}", joules, "boundaries.job.") if row["images"] else "-",
        ]
        return [*found, bounded(row, "carbon{}_g", grams)][: len(columns)]

    rows = [(row["key"], cells(row)) for row in report.rows]
    return section(f"By {by}", "J per image: job bucket.", table("by", columns, rows))


def _three_ways(report: Report) -> str:
    rows = []
    for name, (title, words) in _BOUNDARY_WORDS.items():
        own, at = report.totals["boundaries"][name], f"boundaries.{name}."
        cells = [
            f"{title}<small>{words}</small>",
            bounded(own, "energy{}_j", watt_hours, at),
            figure(f"{at}energy_active_j", own["energy_active_j"], watt_hours),
            bounded(own, "j_per_image{}", joules, at),
            bounded(own, "wh_per_1000_images{}", small_wh, at),
        ]
        rows.append((name, cells))
    columns = [("Boundary", "key"), ("Energy", "n"), ("Above idle", "n wide")]
    columns += [("J per image", "n"), ("Wh per 1,000", "n wide")]
    lead = "The same images, charged with more and more of what surrounds them."
    return section("Where to draw the line", lead, table("boundaries", columns, rows))


def _how_known(report: Report) -> str:
    share = {name: value or 0.0 for name, value in report.totals["share"].items()}
    legend = "".join(
        f'<li><i class="dot {name}"></i>{name} {figure(f"share.{name}", value, percent)}</li>'
        for name, value in report.totals["share"].items()
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


def _buckets_bar(row: Figures, largest_j: float) -> str:
    parts = {bucket: row["buckets_known"][bucket] or 0.0 for bucket in BUCKETS}
    width = 100 * _known_j(row) / largest_j if largest_j else 0.0
    label = ", ".join(f"{b} {watt_hours(j)}" for b, j in parts.items() if j)
    return f'<div style="width:{max(width, 0.5):.1f}%">{stacked_bar(parts, label)}</div>'


def _known_j(row: Figures) -> float:
    return sum(value or 0.0 for value in row["buckets_known"].values())


def _money(report: Report) -> Any:
    return lambda value: money(value, report.rates.currency)
