"""Carbon intensity: one number, a region's yearly average, or a file that varies with time."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import duckdb

from cluster.errors import UserError
from jobs.report.carbon_regions import REGIONS, SOURCE
from un0.suggest import did_you_mean

_HOW = "give g/kWh, a CSV or Parquet file, or a region such as DE, US or world"
_FILES = {".csv": "read_csv", ".parquet": "read_parquet"}
_MAX_G_PER_KWH = 5000.0  # no grid is near it: beyond, someone mixed up kg or MWh
_HOUR_US = 3_600_000_000


@dataclass(frozen=True)
class Span:
    """The time in which an intensity is valid: microseconds since 1970, end exclusive."""

    from_us: int
    until_us: int
    g_per_kwh: float


@dataclass(frozen=True)
class Intensity:
    """Grams of CO2-equivalent per kWh, location-based.

    spans: in order of time, without overlap. One that always holds has no ends. A time that none
    covers has an unknown intensity.
    """

    spans: tuple[Span, ...]
    source: str
    year: int | None = None

    @property
    def constant_g_per_kwh(self) -> float | None:
        """The one figure, or None if it varies with time."""
        return self.spans[0].g_per_kwh if self.slot_us is None else None

    @property
    def slot_us(self) -> int | None:
        """All spans begin and end at multiples of this after the first; None: it never varies."""
        if self.spans[0].until_us >= _END_US:
            return None
        edges = sorted({edge for span in self.spans for edge in (span.from_us, span.until_us)})
        return math.gcd(*(b - a for a, b in pairwise(edges)))

    @property
    def origin_us(self) -> int:
        return self.spans[0].from_us


_START_US, _END_US = -(2**62), 2**62


def constant(g_per_kwh: float, source: str = "given", year: int | None = None) -> Intensity:
    """One figure for all times. Raises UserError unless it is a number from 0 to 5000."""
    _check(g_per_kwh, "--carbon")
    return Intensity((Span(_START_US, _END_US, g_per_kwh),), source, year)


def parse_carbon(text: str) -> Intensity:
    """The intensity for ``--carbon TEXT``: a number, a file or a region. Raises UserError."""
    text = text.strip()
    try:
        return constant(float(text))
    except ValueError:
        pass
    path = Path(text).expanduser()
    if path.suffix.lower() in _FILES:
        return _read(path)
    for region in REGIONS:
        if text.lower() in (region.code.lower(), region.name.lower()):
            return constant(region.g_per_kwh, f"{region.name}, {SOURCE}", region.year)
    known = [name for region in REGIONS for name in (region.code, region.name)]
    fix = did_you_mean(text, known) or _known_regions()
    raise UserError(f"--carbon {text!r} is no number, file or known region: {_HOW}; {fix}")


def _known_regions() -> str:
    return "regions: " + ", ".join(region.code for region in REGIONS)


def _read(path: Path) -> Intensity:
    """A file of times and intensities.

    Two columns, or among more those called ``time`` and ``g_per_kwh``; times without a zone are
    UTC. Each figure holds until the next, at most for the file's usual step.
    """
    rows = sorted(_rows(path))
    if not rows:
        raise UserError(f"--carbon {path}: no rows; write lines of time,g_per_kwh")
    for (time_us, _), (next_us, _) in pairwise(rows):
        if time_us == next_us:
            when = duckdb.sql(f"select make_timestamp({time_us})").fetchall()[0][0]
            raise UserError(f"--carbon {path}: two rows for {when} UTC; keep one")
    for _, g_per_kwh in rows:
        _check(g_per_kwh, f"--carbon {path}")
    steps = Counter(b - a for (a, _), (b, _) in pairwise(rows))
    usual_us = steps.most_common(1)[0][0] if steps else _HOUR_US
    nexts = [time_us for time_us, _ in rows[1:]] + [rows[-1][0] + usual_us]
    spans = (
        Span(time_us, min(next_us, time_us + usual_us), g_per_kwh)
        for (time_us, g_per_kwh), next_us in zip(rows, nexts, strict=True)
    )
    return Intensity(tuple(spans), f"{path.name}, by time")


def _rows(path: Path) -> list[tuple[int, float]]:
    if not path.is_file():
        raise UserError(f"--carbon {path}: no such file; {_HOW}")
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        try:
            table = connection.from_query(
                f"select * from {_FILES[path.suffix.lower()]}($path)", params={"path": str(path)}
            )
            time, value = _columns(path, table.columns)
            times_us = f'epoch_us("{time}"::timestamptz)'
            found: list[tuple[int, float]] = table.project(
                f'{times_us}, "{value}"::double'
            ).fetchall()
        except duckdb.Error as error:
            raise UserError(
                f"--carbon {path} cannot be read: {str(error).splitlines()[0]}; write lines of "
                "time,g_per_kwh such as 2026-01-31T14:00:00Z,212.5"
            ) from error
    for time_us, g_per_kwh in found:
        if time_us is None or g_per_kwh is None:
            raise UserError(f"--carbon {path}: an empty cell; remove the row or fill it in")
    return found


def _columns(path: Path, names: list[str]) -> tuple[str, str]:
    quoted = [name.replace('"', '""') for name in names]
    if {"time", "g_per_kwh"} <= set(quoted):
        return "time", "g_per_kwh"
    if len(quoted) == 2:
        return quoted[0], quoted[1]
    raise UserError(
        f"--carbon {path} has the columns {', '.join(names)}: call those to use time and g_per_kwh"
    )


def _check(g_per_kwh: float, what: str) -> None:
    if not 0 <= g_per_kwh <= _MAX_G_PER_KWH:
        raise UserError(
            f"{what}: {g_per_kwh} g/kWh is not an intensity; give 0 to {_MAX_G_PER_KWH:.0f}"
        )
