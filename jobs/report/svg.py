"""Charts of the HTML report as inline SVG: fluid in width, without scripts, readable when printed.

Positions across are percentages, so that a chart fits a phone without its text shrinking.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from cluster.states import ENERGY_BUCKETS
from jobs.report.panels import Moment, Spread
from jobs.report.text import bucket_text

_HEIGHT, _TOP, _AXIS = 220, 12, 22
_MAX_LABELS = 6
_UNITS = ((3.6e12, "GWh"), (3.6e9, "MWh"), (3.6e6, "kWh"), (3600.0, "Wh"), (1.0, "J"))
_LABELS = {"hour": "%H:%M", "day": "%d %b", "week": "%d %b", "month": "%b %Y"}


def stacked_bar(parts: Mapping[str, float], label: str, height: int = 12) -> str:
    """One bar, divided in proportion; nothing but a track if there is nothing to divide."""
    whole = sum(parts.values())
    rects, start = [], 0.0
    for name, value in parts.items():
        if whole and value:
            width = 100 * value / whole
            tip = f"<title>{escape(name)} {value / whole:.1%}</title>"
            rects.append(_rect(start, 0, width, height, name, tip))
            start += width
    track = _rect(0, 0, 100, height, "track")
    return _svg(track + "".join(rects), height, label)


def value_bar(value: float, largest: float, css: str, label: str) -> str:
    """One bar, as long as the value is of the largest."""
    width = 100 * value / largest if largest else 0
    return _svg(_rect(0, 0, 100, 8, "track") + _rect(0, 0, width, 8, css), 8, label)


def timeline(moments: Sequence[Moment], step: str) -> str:
    """Stacked columns of energy over time, with an axis in watt-hours."""
    top_j = max(sum(map(moment.known_j, ENERGY_BUCKETS)) for moment in moments)
    unit_j, unit = next((u for u in _UNITS if top_j >= u[0]), _UNITS[-1])
    ticks = nice_ticks(top_j / unit_j)
    scale = (_HEIGHT - _TOP) / (ticks[-1] * unit_j)
    lines, labels = [], []
    for tick in ticks:
        y = _HEIGHT - tick * unit_j * scale
        lines.append(_level("grid", 0, 100, y))
        labels.append(f'<text x="100%" dx="-9" y="{y + 4:.1f}">{tick:g} {unit}</text>')
    columns = "".join(_columns(moments, step, scale))
    whole = _HEIGHT + _AXIS
    first, last = moments[0].start, moments[-1].start
    label = f"Energy per {step} from {first:%Y-%m-%d} to {last:%Y-%m-%d}, stacked by bucket"
    return (
        '<div class="chart"><div class="y">'
        f'<svg height="{whole}" aria-hidden="true">{"".join(labels)}</svg></div>'
        + _svg("".join(lines) + columns + "".join(_dates(moments, step)), whole, label)
        + "</div>"
    )


def spread_strip(
    spread: Spread, mean: float, bounds: tuple[float, float] | None, largest: float
) -> str:
    """J/image: from the lowest to the highest, where most lie, the median, and the ratio of sums.

    mean: all energy over all images; bounds: its own, if it is an estimate. largest: the right
    end of the scale.
    """

    def x(value: float) -> float:
        return 100 * value / largest

    middle, unsure, words = 13, "", ""
    if bounds is not None:
        unsure = _level("bound", x(bounds[0]), x(bounds[1]), middle)
        words = f"; an estimate, itself between {bounds[0]:.3g} and {bounds[1]:.3g}"
    return _svg(
        _level("grid", 0, 100, middle)
        + unsure
        + _level("whisker", x(spread.lowest), x(spread.highest), middle)
        + _rect(x(spread.p10), 5, x(spread.p90) - x(spread.p10), 16, "range")
        + f'<line class="median" x1="{x(spread.median):.3f}%" x2="{x(spread.median):.3f}%" '
        f'y1="4" y2="22"/><circle class="mean" cx="{x(mean):.3f}%" cy="{middle}" r="5"/>',
        26,
        f"{spread.lowest:.3g} to {spread.highest:.3g} J per image, 80% of images between "
        f"{spread.p10:.3g} and {spread.p90:.3g}{words}",
    )


def nice_ticks(largest: float) -> list[float]:
    """From 0 to at least ``largest`` in three to five round steps."""
    if largest <= 0:
        return [0.0, 1.0]
    power = 10.0 ** math.floor(math.log10(largest / 3))
    size = next(m * power for m in (1, 2, 2.5, 5, 10, 20) if largest / (m * power) <= 5)
    return [size * i for i in range(math.ceil(largest / size - 1e-9) + 1)]


def _columns(moments: Sequence[Moment], step: str, scale: float) -> Iterator[str]:
    slot = 100 / len(moments)
    for i, moment in enumerate(moments):
        y, rects = float(_HEIGHT), []
        for bucket in ENERGY_BUCKETS:
            height = moment.known_j(bucket) * scale
            if height > 0:
                y -= height
                rects.append(_rect((i + 0.09) * slot, y, 0.82 * slot, height, bucket))
        held = [
            f"{b} {bucket_text(moment.figures, b)}" for b in ENERGY_BUCKETS if moment.known_j(b)
        ]
        when = moment.start.strftime("%Y-%m-%d %H:%M" if step == "hour" else "%Y-%m-%d")
        tip = f"<title>{when}: {', '.join(held) or 'nothing known'}</title>"
        yield f"<g>{tip}{''.join(rects)}</g>"


def _dates(moments: Sequence[Moment], step: str) -> Iterator[str]:
    every = math.ceil(len(moments) / _MAX_LABELS)
    for i in range(0, len(moments), every):
        x = 100 * (i + 0.5) / len(moments)
        text = moments[i].start.strftime(_LABELS[step])
        anchor = "start" if x < 6 else "end" if x > 94 else "middle"
        css = "wide" if i // every % 2 else "narrow"  # phones have room for every other one
        place = f'x="{x:.3f}%" y="{_HEIGHT + 18}" text-anchor="{anchor}"'
        yield f'<text class="{css}" {place}>{text}</text>'


def _level(css: str, start: float, end: float, y: float) -> str:
    return f'<line class="{css}" x1="{start:.3f}%" x2="{end:.3f}%" y1="{y:.1f}" y2="{y:.1f}"/>'


def _rect(x: float, y: float, width: float, height: float, css: str, inside: str = "") -> str:
    shape = f'x="{x:.3f}%" y="{y:.2f}" width="{width:.3f}%" height="{height:.2f}"'
    return f'<rect class="{css}" {shape}>{inside}</rect>'


def _svg(content: str, height: int, label: str) -> str:
    return f'<svg height="{height}" role="img" aria-label="{escape(label)}">{content}</svg>'
