"""Merge neighbouring rows of the energy log. Sums, epochs and nulls stay the same. Pure."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from itertools import groupby

from cluster.ledger.usage import EnergyRow, Interval, plus

MAX_MERGED_NS = 60_000_000_000  # so that energy over time can still be seen

_Window = Sequence[EnergyRow]


def merged(rows: Iterable[EnergyRow]) -> list[EnergyRow]:
    """The rows, with neighbouring intervals merged if their rows differ in amounts only.

    rows: all rows of an interval follow each other, as ``Ledger.drain`` returns them. Merged
    intervals are at most a minute long.
    """
    last: dict[str, int] = {}  # by device, where in `windows` its newest is
    windows: list[_Window] = []
    for window in _windows(rows):
        hw_id = window[0].interval.device.hw_id
        index = last.get(hw_id)
        if index is not None and _alike(windows[index], window):
            windows[index] = _joined(windows[index], window)
        else:
            last[hw_id] = len(windows)
            windows.append(window)
    return [row for window in windows for row in window]


def condensed(rows: Iterable[EnergyRow]) -> list[EnergyRow]:
    """The rows as one gap per device, epoch and run of known or unknown energy."""
    intervals = {(r.interval.device.hw_id, r.interval.start_ns): r.interval for r in rows}
    in_order = [intervals[key] for key in sorted(intervals)]
    gaps: list[EnergyRow] = []
    for _, run in groupby(in_order, lambda i: (i.device.hw_id, i.epoch, i.energy_mj is None)):
        whole = reduce(Interval.joined, run)
        gaps.append(EnergyRow(whole, "gap", whole.energy_mj, None, whole.low_mj, whole.high_mj))
    return gaps


def _windows(rows: Iterable[EnergyRow]) -> Iterator[_Window]:
    for _, window in groupby(rows, lambda r: (r.interval.device.hw_id, r.interval.start_ns)):
        yield list(window)


def _alike(window: _Window, later: _Window) -> bool:
    a, b = window[0].interval, later[0].interval
    return (
        a.end_ns == b.start_ns
        and a.epoch == b.epoch
        and b.end_ns - a.start_ns <= MAX_MERGED_NS
        and [_what(row) for row in window] == [_what(row) for row in later]
    )


def _what(row: EnergyRow) -> Hashable:
    """All of a row but its amounts and its time."""
    known = row.interval.energy_mj is not None, row.energy_mj is not None
    counted = row.images is not None
    return row.bucket, row.attempt_id, row.work, row.batch_size, row.shared, known, counted


def _joined(window: _Window, later: _Window) -> _Window:
    interval = window[0].interval.joined(later[0].interval)
    return [
        replace(
            a,
            interval=interval,
            energy_mj=plus(a.energy_mj, b.energy_mj),
            active_mj=plus(a.active_mj, b.active_mj),
            low_mj=plus(a.low_mj, b.low_mj),
            high_mj=plus(a.high_mj, b.high_mj),
            images=plus(a.images, b.images),
        )
        for a, b in zip(window, later, strict=True)
    ]
