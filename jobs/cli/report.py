"""``un0 report``: energy, carbon and cost of a store's images."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer

from cluster.errors import UserError
from jobs.cli.options import EndpointUrl, Json, Store
from jobs.cli.progress import progress
from jobs.defaults import DEFAULT_STORE
from un0.suggest import choose

_YEARS = range(1970, 3000)


def report_command(
    store: Store = DEFAULT_STORE,
    since: Annotated[
        str | None, typer.Option(help="First day, 2026-01-31, or moment, 2026-01-31T12:00Z. UTC.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="Last day, which is included, or moment, which is not.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="job, owner, label, node, hardware, model, encoding or day.")
    ] = None,
    format: Annotated[str, typer.Option(help="table, json, csv, parquet or html.")] = "table",
    out: Annotated[Path | None, typer.Option(help="Write to this file.")] = None,
    pue: Annotated[
        float | None, typer.Option(help="Facility energy over that of its computers, from 1.")
    ] = None,
    carbon: Annotated[
        str | None, typer.Option(help="gCO2e/kWh, a region such as DE, or a CSV or Parquet file.")
    ] = None,
    embodied: Annotated[
        float | None, typer.Option(help="gCO2e of making the hardware, the period's part.")
    ] = None,
    price: Annotated[float | None, typer.Option(help="Per kWh.")] = None,
    currency: Annotated[str | None, typer.Option(help="Of the price, for example EUR.")] = None,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Report energy, carbon and cost, in total or by job, node, hardware, day and others."""
    from cluster.storage.open import open_store
    from jobs.cli.report_output import FORMATS, write_report
    from jobs.report.build import build_report
    from jobs.report.carbon import parse_carbon
    from jobs.report.figures import Rates
    from jobs.report.rows import Period

    format = "json" if as_json else format
    if format not in FORMATS:
        raise UserError(f"--format {format!r} is not known; {choose(format, FORMATS)}")
    if format == "parquet" and out is None:
        raise UserError("--format parquet is not for a terminal; say where: --out report.parquet")
    period = Period(_moment("since", since), _moment("until", until))
    if period.since and period.until and period.since >= period.until:
        raise UserError(f"--since {since} is not before --until {until}; swap them")
    rates = Rates(parse_carbon(carbon) if carbon else None, pue, price, currency, embodied)
    opened = open_store(store, endpoint_url=endpoint_url, probe=False)
    with progress("reading the energy log", quiet=as_json):
        report = build_report(opened, period=period, by=by, rates=rates, panels=format == "html")
    write_report(report, format, out)


def _moment(name: str, text: str | None) -> datetime | None:
    """A moment in UTC; a bare day is its beginning, or for ``until`` its end."""
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        moment = None
    if moment is None or moment.year not in _YEARS:
        raise UserError(
            f"--{name} {text!r} is not a day or a moment; write 2026-01-31 or 2026-01-31T12:00Z"
        )
    moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    bare = len(text.strip()) <= len("2026-01-31")
    return moment + timedelta(days=1) if name == "until" and bare else moment
