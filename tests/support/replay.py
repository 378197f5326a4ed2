"""Playing a recorded trace back on any clock: for simulations, and to look at a day again.

A trace is CSV with a header, or JSON lines, with the columns

    t_s        seconds since the trace began, ascending for each device
    device     which device it is, in whatever words
    energy_mj  its counter's value; empty or null while it could not be read
    hw_type    optional: gpu (the default) or cpu
"""

from __future__ import annotations

import csv
import json
import threading
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.ledger.reading import Device, HwType, Reading
from cluster.metering.counter import CounterTrack
from cluster.metering.source import ClockNs


@dataclass(frozen=True)
class Trace:
    """The recorded counter of one device. ``energy_mj`` is None where it could not be read."""

    device: Device
    at_ns: tuple[int, ...]
    energy_mj: tuple[int | None, ...]


def load_traces(path: Path) -> dict[str, Trace]:
    """The traces of a file, by device. Raises UserError on a file that is not one."""
    columns: dict[str, tuple[HwType, list[int], list[int | None]]] = {}
    for number, row in _rows(path):
        try:
            name, at_ns = str(row["device"]), round(float(row["t_s"]) * 1e9)
            energy_mj = None if row["energy_mj"] in (None, "") else int(row["energy_mj"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}, line {number}: {row!r} is not a reading ({error!r}); it needs t_s in "
                "seconds, device, and energy_mj as a whole number or empty"
            ) from None
        hw_type: HwType = "cpu" if row.get("hw_type") == "cpu" else "gpu"
        _, times, values = columns.setdefault(name, (hw_type, [], []))
        if times and at_ns < times[-1]:
            raise UserError(f"{path}, line {number}: t_s of {name} goes back; sort the trace by it")
        times.append(at_ns)
        values.append(energy_mj)
    if not columns:
        raise UserError(f"{path} holds no reading; it needs columns t_s, device, energy_mj")
    return {
        name: Trace(
            Device(name, hw_type, name, "gpu" if hw_type == "gpu" else "package"),
            tuple(times),
            tuple(values),
        )
        for name, (hw_type, times, values) in columns.items()
    }


class ReplaySource:
    """Reads a trace by ``clock_ns``, whose zero is the beginning of the trace.

    Like a real counter it keeps its last value until the next one. Before the first and after the
    last it is missing.
    """

    provider = "replay"

    def __init__(self, trace: Trace, clock_ns: ClockNs) -> None:
        self.device = trace.device
        self._trace = trace
        self._clock_ns = clock_ns
        self._track = CounterTrack("replay")
        self._lock = threading.Lock()
        self._closed = False

    def read(self) -> Reading:
        with self._lock:
            at_ns = self._clock_ns()
            if self._closed:
                return self._track.failed(at_ns, "the meter is closed")
            times = self._trace.at_ns
            if not times[0] <= at_ns <= times[-1]:
                return self._track.failed(at_ns, "outside of the trace")
            value = self._trace.energy_mj[bisect_right(times, at_ns) - 1]
            if value is None:
                return self._track.failed(at_ns, "not read when the trace was recorded")
            return self._track.read(at_ns, value)

    def close(self) -> None:
        self._closed = True


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every row. Raises UserError."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the trace {path}: {error}") from None
    lines = text.splitlines()
    if not text.lstrip().startswith("{"):
        yield from enumerate(csv.DictReader(lines), start=2)
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number} is not JSON: {error}") from None
        if not isinstance(row, dict):
            raise UserError(f"{path}, line {number} is not a JSON object: {line[:60]}")
        yield number, row
