"""The energy report of a store, in total and by a chosen dimension. Reads only the store.

rows (rows.py) -> sums by key (sums.py) -> figures (figures.py) -> Report
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import duckdb

from cluster.clock import utc_now
from cluster.errors import Fatal, NotFound, UserError
from cluster.states import ENERGY_BUCKETS
from cluster.storage.commit import parse_record
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import JobRecord
from jobs.report.figures import Figures, Rates, Row, figures, row_of
from jobs.report.hosts import SPLIT_KEY, EncodingRow, encoding_row, splits_of
from jobs.report.panels import Panels, panel_keys, panels_of
from jobs.report.rows import Period, Rows, Source, log_files, open_rows
from jobs.report.sums import Part, Parts, merged, sums_by, total
from jobs.view import View
from un0.suggest import choose

# What --by can name, and the SQL of it; owners, labels, models, encodings are those of the jobs
_JOB = "job_id"
DIMENSIONS = {
    "job": _JOB,
    "owner": _JOB,
    "label": _JOB,
    "node": "host_name",
    "hardware": "hw_name",
    "model": _JOB,
    "encoding": _JOB,
    "day": "make_timestamp(epoch_us(ts_start))::date",
}
NO_JOB_FILE = "(not in this store)"
UNLABELLED = "(no label)"
_TRIES = 5
_THREADS = 16


class IntensityView(View):
    """Of the grid. g_per_kwh: None where it changes by the hour."""

    g_per_kwh: float | None
    source: str
    year: int | None


class _Origin(View):
    """Of what a report is."""

    store: str
    source: Source
    boundary: str
    since: str | None
    until: str | None
    first_day: str | None
    last_day: str | None
    log_files: int
    log_bytes: int


class ReportView(Figures, _Origin):
    """What ``un0 report --json`` prints: the totals, what they rest on, and the rows of ``by``."""

    closure_error_mj: int | None
    pue: float | None
    carbon_intensity: IntensityView | None
    embodied_g: float | None
    price_per_kwh: float | None
    currency: str | None
    notes: list[str]
    by: str | None
    rows: list[EncodingRow | Row]


@dataclass(frozen=True)
class Report:
    """What ``un0 report`` prints.

    boundary: what the figures that name none include. closure_error_mj: rows against meters.
    """

    store: str
    source: Source
    boundary: str
    period: Period
    days: tuple[str | None, str | None]
    files: int
    size_bytes: int
    by: str | None
    rates: Rates
    totals: Figures
    closure_error_mj: int | None
    rows: list[EncodingRow | Row]
    notes: list[str]
    made_at: datetime
    panels: Panels | None = None

    def view(self) -> ReportView:
        """The report as ``--json`` gives it."""
        intensity = self.rates.intensity
        return ReportView(
            store=self.store,
            source=self.source,
            boundary=self.boundary,
            since=_iso(self.period.since),
            until=_iso(self.period.until),
            first_day=self.days[0],
            last_day=self.days[1],
            log_files=self.files,
            log_bytes=self.size_bytes,
            **dict(self.totals),
            closure_error_mj=self.closure_error_mj,
            pue=self.rates.pue,
            carbon_intensity=None
            if intensity is None
            else IntensityView(
                g_per_kwh=intensity.constant_g_per_kwh,
                source=intensity.source,
                year=intensity.year,
            ),
            embodied_g=self.rates.embodied_g,
            price_per_kwh=self.rates.price_per_kwh,
            currency=self.rates.currency,
            notes=self.notes,
            by=self.by,
            rows=self.rows,
        )


def build_report(
    store: ObjectStore,
    *,
    period: Period | None = None,
    by: str | None = None,
    rates: Rates | None = None,
    panels: bool = False,
) -> Report:
    """The report of a period, by default of the whole store.

    by: one of ``DIMENSIONS``. panels: with what the HTML page shows besides. Raises UserError for
    an unknown ``by``; Fatal if the log cannot be read.
    """
    period, rates = period or Period(), rates or Rates()
    if by is not None and by not in DIMENSIONS:
        raise UserError(f"--by {by!r} is not known; {choose(by, DIMENSIONS)}")
    for _ in range(_TRIES):
        files = log_files(store, period)
        try:
            with open_rows(store, period, files) as rows:
                return _report(store, rows, period, by, rates, panels)
        except (duckdb.Error, OSError) as error:
            failed: Exception = error
            # A node at work replaces its newest file with every flush: then look again
            if log_files(store, period) == files:
                break
    raise Fatal(f"the energy log of {store.config.uri} cannot be read: {failed}") from failed


def _report(
    store: ObjectStore,
    rows: Rows,
    period: Period,
    by: str | None,
    rates: Rates,
    panels: bool,
) -> Report:
    boundary = "whole_node" if rows.source == "ledger" else "job"
    keys = {"by": DIMENSIONS[by] if by else "null"}
    keys |= panel_keys(rows) if panels else {}
    keys |= {"split": SPLIT_KEY} if by == "encoding" else {}
    with ThreadPoolExecutor(1) as pool:  # it waits for files while the sums keep the CPUs busy
        metered_mj = pool.submit(rows.metered_mj)
        sums = sums_by(rows, keys, rates.intensity)
    everything = merged(sums["by"].values())
    found: list[EncodingRow | Row] = []
    if by:
        members = _members(store, by, sums["by"])
        groups = {key: merged(sums["by"][own] for own in owners) for key, owners in members.items()}
        found = [*rows_of(groups, rates, boundary, by_key=by == "day")]
        if by == "encoding":
            splits = splits_of(sums["split"])
            found = [
                encoding_row(row, [splits[job] for job in members[row.key] if job in splits])
                for row in found
            ]
    return Report(
        store=store.config.uri,
        source=rows.source,
        boundary=boundary,
        period=period,
        days=(_iso(rows.first_day), _iso(rows.last_day)),
        files=len(rows.log),
        size_bytes=sum(file.size_bytes for file in rows.log),
        by=by,
        rates=rates,
        totals=figures(everything, rates, boundary),
        closure_error_mj=_closure_error_mj(rows, metered_mj.result(), everything),
        rows=found,
        notes=list(_notes(rows.source, everything, rates, by)),
        made_at=utc_now(),
        panels=panels_of(rows, sums, rates, boundary) if panels else None,
    )


def rows_of(
    groups: Mapping[str | None, Parts], rates: Rates, boundary: str, *, by_key: bool = False
) -> list[Row]:
    """Figures by key, the most energy first or in order of keys; rows without a key last."""

    def order(key: str | None) -> tuple[bool, float, str]:
        known_mj = 0 if by_key else total(groups[key].values()).known_mj
        return key is None, -known_mj, key or ""

    return [row_of(key, groups[key], rates, boundary) for key in sorted(groups, key=order)]


def _closure_error_mj(rows: Rows, metered_mj: int | None, parts: Parts) -> int | None:
    """By how much meters and buckets differ. Rows in no known bucket are part of it."""
    if metered_mj is None:
        return None
    reported = total(parts[bucket] for bucket in ENERGY_BUCKETS if bucket in parts)
    return abs(metered_mj - rows.logged_mj(reported.known_mj))


def _members(
    store: ObjectStore, by: str, sums: Iterable[str | None]
) -> dict[str | None, list[str | None]]:
    """By what was asked for, the keys of the sums that belong to it: jobs, where it is of them."""
    if DIMENSIONS[by] != _JOB or by == "job":
        return {key: [key] for key in sums}
    records = _records(store, [job_id for job_id in sums if job_id is not None])
    found: defaultdict[str | None, list[str | None]] = defaultdict(list)
    for job_id in sums:
        for key in [None] if job_id is None else _keys_of_job(by, records[job_id]):
            found[key].append(job_id)
    return found


def _keys_of_job(by: str, record: JobRecord | None) -> list[str]:
    if record is None:
        return [NO_JOB_FILE]
    if by == "label":
        labels = record.spec.labels
        return [f"{name}={value}" for name, value in sorted(labels.items())] or [UNLABELLED]
    if by == "encoding":
        return [record.workload.encoding_key]
    return [record.owner if by == "owner" else record.workload.model]


def _records(store: ObjectStore, job_ids: list[str]) -> dict[str, JobRecord | None]:
    def read(job_id: str) -> JobRecord | None:
        key = JobLayout(job_id).spec
        try:
            return parse_record(JobRecord, key, store.get(key))
        except (NotFound, Fatal):
            return None  # deleted, or damaged: its energy was spent all the same

    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(job_ids, pool.map(read, job_ids), strict=True))


def _notes(source: str, parts: Mapping[str, Part], rates: Rates, by: str | None) -> Iterator[str]:
    """Notes that a reader needs to interpret the figures."""
    everything = total(parts.values())
    if source == "commits":
        yield "From commits: no idle, overhead or wasted figures. The store has no energy log."
    if not everything.rows:
        yield "Nothing was recorded in this period."
    if everything.missing_rows:
        yield "Some energy is missing: totals with it are unknown, and more than what is known."
    if everything.estimated_rows:
        yield "Estimates have a low and a high bound; the truth is somewhere between."
    if rates.intensity is not None and everything.uncovered_rows:
        yield "The carbon file does not cover the whole period: carbon is unknown."
    if rates.pue is None and (rates.intensity or rates.price_per_kwh is not None):
        yield "No --pue: carbon and cost are of the metered devices alone, without the facility."
    if rates.intensity is not None and rates.embodied_g is None:
        yield "SCI without embodied carbon: give --embodied for the whole of it."
    if by == "label":
        yield "A job counts for each of its labels: rows may add up to more than the total."


def _iso(moment: Any) -> str | None:
    return None if moment is None else str(moment.isoformat())
