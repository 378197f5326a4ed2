"""Sections of the HTML report about its parts: time, hardware, jobs, nodes, rows of --by."""

from __future__ import annotations

from html import escape

from cluster.states import ENERGY_BUCKETS
from jobs.format import joules
from jobs.report.build import Report
from jobs.report.cells import bounded, bucket_energy, count, figure, section, table
from jobs.report.figures import Figures, Row
from jobs.report.panels import Panels
from jobs.report.svg import spread_strip, stacked_bar, timeline
from jobs.report.text import bucket_text, grams, percent, watt_hours


def over_time(panels: Panels) -> str:
    used = [b for b in ENERGY_BUCKETS if any(moment.known_j(b) for moment in panels.timeline)]
    legend = "".join(f'<li><i class="dot {b}"></i>{b}</li>' for b in used)
    numbers = table(
        "timeline",
        [(panels.step, ""), *((bucket, "n") for bucket in used)],
        [
            (
                moment.start.isoformat(),
                [
                    f"{moment.start:%Y-%m-%d %H:%M}",
                    *(bucket_energy(moment.figures, bucket) for bucket in used),
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


def by_hardware(panels: Panels) -> str:
    uppers = (row.boundaries["job"].j_per_image_high or 0.0 for row in panels.hardware)
    largest = max(*(spread.highest for spread in panels.spreads.values()), *uppers, 0.0, 0.0)

    def cells(row: Row) -> list[str]:
        own, spread = row.boundaries["job"], panels.spreads.get(row.key or "")
        strip = ""
        if spread is not None and own.j_per_image is not None and largest:
            low, high = own.j_per_image_low, own.j_per_image_high
            bounds = None if low is None or high is None else (low, high)
            strip = spread_strip(spread, own.j_per_image, bounds, largest)
        each = bounded(own, "j_per_image{}", joules, "boundaries.job.") if row.images else "-"
        name = f"{escape(row.key or '')}<small>{count(row.images)} images</small>"
        return [name, strip, each]

    return section(
        "Joules per image by hardware",
        "Job bucket. Dot: all of its energy over all of its images. Band: where 80% of the images "
        f"lie, job by job and device by device; bar: their median. Dashes: bounds of an "
        f"estimate. From 0 to {joules(largest)}.",
        table(
            "hardware",
            [("Hardware", "key"), ("", "strip"), ("J per image", "n")],
            [(row.key, cells(row)) for row in panels.hardware],
        ),
    )


def heaviest_jobs(panels: Panels) -> str:
    largest_j = max(_known_j(row) for row in panels.jobs)
    return section(
        "Heaviest jobs",
        "By energy: what their images took, and their lost attempts.",
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
                    row.key,
                    [
                        escape(row.key or ""),
                        _buckets_bar(row, largest_j),
                        bounded(row, "energy{}_j", watt_hours),
                        figure("images", row.images, count),
                        bounded(row, "j_per_image{}", joules) if row.images else "-",
                    ],
                )
                for row in panels.jobs
            ],
        ),
    )


def most_wasteful_nodes(panels: Panels) -> str:
    largest_j = max(_known_j(row) for row in panels.nodes)
    return section(
        "Most wasteful nodes",
        "By energy that was idle or wasted.",
        table(
            "nodes",
            [("Node", "key"), ("", "bar wide"), ("Energy", "n"), ("Idle", "n"), ("Wasted", "n")],
            [
                (
                    row.key,
                    [
                        escape(row.key or ""),
                        _buckets_bar(row, largest_j),
                        bounded(row, "energy{}_j", watt_hours),
                        figure("idle_share", row.idle_share, percent),
                        figure("wasted_share", row.wasted_share, percent),
                    ],
                )
                for row in panels.nodes
            ],
        ),
    )


def by_rows(report: Report, by: str) -> str:
    columns = [
        (by.capitalize(), "key"),
        ("Images", "n wide"),
        ("Energy", "n"),
        ("J per image", "n"),
    ]
    split = {"Device": "device_j_per_image{}", "CPUs beside": "host_j_per_image{}"}
    split = split if by == "encoding" else {}
    columns += [(name, "n") for name in split]
    if report.rates.intensity is not None:
        columns.append(("CO2e", "n"))

    def cells(row: Row) -> list[str]:
        own = row.boundaries["job"]
        found = [
            "no job" if row.key is None else escape(row.key or ""),
            figure("images", row.images, count),
            bounded(row, "energy{}_j", watt_hours),
            bounded(own, "j_per_image{}", joules, "boundaries.job.") if row.images else "-",
            *(bounded(row, name, joules) if row.images else "-" for name in split.values()),
        ]
        return [*found, bounded(row, "carbon{}_g", grams)][: len(columns)]

    rows = [(row.key, cells(row)) for row in report.rows]
    return section(f"By {by}", "J per image: job bucket.", table("by", columns, rows))


def _buckets_bar(row: Figures, largest_j: float) -> str:
    parts = {str(bucket): row.known_j(bucket) for bucket in ENERGY_BUCKETS}
    width = 100 * _known_j(row) / largest_j if largest_j else 0.0
    label = ", ".join(f"{b} {bucket_text(row, b)}" for b in ENERGY_BUCKETS if row.known_j(b))
    return f'<div style="width:{max(width, 0.5):.1f}%">{stacked_bar(parts, label)}</div>'


def _known_j(row: Figures) -> float:
    return sum(map(row.known_j, ENERGY_BUCKETS))
