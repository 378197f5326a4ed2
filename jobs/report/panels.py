"""Panels of the HTML report: time, hardware, jobs by energy, nodes by waste."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.ledger.window import MIN_WINDOW_NS
from cluster.states import EnergyBucket
from jobs.report.figures import Figures, Rates, Row, figures, row_of
from jobs.report.rows import Rows
from jobs.report.sums import Parts, total

TOP = 10

# Every job on every device
_EACH = """
select hw_name, host_name, hw_id, job_id, sum(energy_mj) as mj, sum(images) as images,
    sum(duration_ns) as ns
from energy where bucket = 'job' and quality <> 'missing' group by all
"""

# Its J/image, and their spread by the images made
_SPREAD = f"""
with each as (
    select hw_name, sum(mj) / 1e3 / sum(images) as j, sum(images) as images
    from parts
    group by hw_name, host_name, hw_id, job_id
    having sum(images) > 0 and sum(ns) >= {MIN_WINDOW_NS}
),
ranked as (
    select hw_name, j,
        (sum(images) over (partition by hw_name order by j, images)) / sum(images)
            over (partition by hw_name) as share
    from each
)
select hw_name, count(*), min(j), min(j) filter (share >= 0.1), min(j) filter (share >= 0.5),
    min(j) filter (share >= 0.9), max(j)
from ranked group by all
"""


@dataclass(frozen=True)
class Moment:
    """A step of time, and its figures."""

    start: datetime
    figures: Figures

    def known_j(self, bucket: EnergyBucket) -> float:
        """The known energy of the bucket, for the chart."""
        return self.figures.known_j(bucket)


@dataclass(frozen=True)
class Spread:
    """J/image of ``count`` pairs of job and device. A tenth of the images took less than p10."""

    count: int
    lowest: float
    p10: float
    median: float
    p90: float
    highest: float


@dataclass(frozen=True)
class Panels:
    """step: ``hour``, ``day``, ``week`` or ``month``. The rest as rows of a report."""

    step: str
    timeline: list[Moment]
    hardware: list[Row]
    spreads: dict[str, Spread]
    jobs: list[Row]
    nodes: list[Row]


def panel_keys(rows: Rows) -> dict[str, str]:
    """The keys by which sums are needed."""
    return {
        "hardware": "hw_name",
        "job": "job_id",
        "node": "host_name",
        "time": f"date_trunc('{_step(rows)}', make_timestamp(epoch_us(ts_start)))",
    }


def panels_of(
    rows: Rows,
    sums: Mapping[str, Mapping[str | None, Parts]],
    rates: Rates,
    boundary: str,
) -> Panels:
    """What the page shows, from the sums by ``panel_keys``."""

    def table(dimension: str, weight: Callable[[Parts], int]) -> list[Row]:
        groups = {key: parts for key, parts in sums[dimension].items() if key is not None}
        order = sorted(groups, key=lambda key: (-weight(groups[key]), key))
        return [row_of(key, groups[key], rates, boundary) for key in order[:TOP]]

    rows.gather("parts", _EACH)
    spreads = rows.connection.execute(_SPREAD).fetchall()
    return Panels(
        step=_step(rows),
        timeline=[
            Moment(start, figures(parts, rates, boundary))
            for start, parts in _timeline(sums["time"], _step(rows))
        ],
        hardware=table("hardware", _known_mj),
        spreads={name: Spread(*values) for name, *values in spreads},
        jobs=table("job", _known_mj),
        nodes=table("node", _lost_mj),
    )


def _known_mj(parts: Parts) -> int:
    return total(parts.values()).known_mj


def _lost_mj(parts: Parts) -> int:
    """Energy that made no committed image, mJ."""
    return total(part for bucket, part in parts.items() if bucket in ("idle", "wasted")).known_mj


def _step(rows: Rows) -> str:
    """The step that gives some dozens of columns."""
    if rows.first_day is None or rows.last_day is None:
        return "day"
    days = (rows.last_day - rows.first_day).days + 1
    return "hour" if days <= 2 else "day" if days <= 92 else "week" if days <= 550 else "month"


def _timeline(groups: Mapping[str | None, Parts], step: str) -> Iterator[tuple[datetime, Parts]]:
    """Every step from the first to the last, those without rows included."""
    found = {datetime.fromisoformat(key): parts for key, parts in groups.items() if key}
    if not found:
        return
    moment, last = min(found), max(found)
    while moment <= last:
        yield moment, found.get(moment, {})
        moment = _next(moment, step)


def _next(moment: datetime, step: str) -> datetime:
    if step == "month":
        return (moment.replace(day=1) + timedelta(days=32)).replace(day=1)
    return moment + timedelta(**{f"{step}s": 1})
