"""Building blocks of the HTML report: figures, cells, tables, sections.

Every figure stands in a ``<data value=… data-figure=…>`` whose value is the report's own, so that
the page can be checked against ``--format json``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

from cluster.states import EnergyBucket
from jobs.format import UNKNOWN
from jobs.report.figures import Bounded, Figure, Figures
from jobs.report.text import Show, watt_hours


def figure(path: str, value: Any, show: Show) -> str:
    """A figure for people and for programs. Unknown: ``path`` without a value."""
    known = "" if value is None else f' value="{value!r}"'
    return f'<data{known} data-figure="{escape(path)}">{escape(show(value))}</data>'


def bounded(figures: Bounded, name: str, show: Show, at: str = "") -> str:
    """A figure such as ``energy{}_j``, below it its bounds if an estimate is in it.

    One that is unknown because part of it is missing shows its lower bound.
    """
    names = [at + name.format(bound) for bound in ("", "_low", "_high")]
    return _bounded(names, figures.figure(name), show)


def bucket_energy(figures: Figures, bucket: EnergyBucket, at: str = "") -> str:
    """The energy of one bucket, like ``bounded``."""
    names = [f"{at}{name}.{bucket}" for name in ("buckets", "buckets_low", "buckets_high")]
    return _bounded(names, figures.bucket(bucket), watt_hours)


def _bounded(paths: Sequence[str], found: Figure, show: Show) -> str:
    values = (found.value, found.low, found.high)
    value, low, high = (figure(path, v, show) for path, v in zip(paths, values, strict=True))
    known = [v is not None for v in values]
    if not known[0] and known[1]:
        return f"≥&nbsp;{low}"
    return f'{value}<span class="bounds">{low} to {high}</span>' if all(known) else value


def table(
    name: str, columns: Sequence[tuple[str, str]], rows: Iterable[tuple[str | None, Sequence[str]]]
) -> str:
    """A table of (title, CSS classes) and (key, HTML of the cells)."""
    head = "".join(f"<th{_css(css)}>{title}</th>" for title, css in columns)
    lines = []
    for key, cells in rows:
        inner = "".join(
            f"<td{_css(css)}>{html}</td>" for (_, css), html in zip(columns, cells, strict=True)
        )
        lines.append(f'<tr data-key="{escape(key or "")}">{inner}</tr>')
    return (
        f'<table data-table="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def section(title: str, lead: str, content: str) -> str:
    return f'<section><h2>{title}</h2><p class="lead">{lead}</p>{content}</section>'


def tile(name: str, value: str, more: str, css: str = "") -> str:
    return (
        f'<div{_css(css)}><p class="name">{name}</p><p class="value">{value}</p>'
        f'<p class="more">{more}</p></div>'
    )


def count(value: int | None) -> str:
    return UNKNOWN if value is None else f"{value:,}"


def _css(css: str) -> str:
    return f' class="{css}"' if css else ""
