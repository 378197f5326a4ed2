"""``un0 jobs``: the jobs of a store."""

from __future__ import annotations

import sys
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.states import JobState
from jobs.cli.asking import StoreArguments, service_of
from jobs.cli.job_options import split_labels
from jobs.cli.options import EndpointUrl, Json, Store, plain_table, show_json, show_table, whole
from jobs.defaults import DEFAULT_STORE
from jobs.format import UNKNOWN, bounded, quality_words
from un0.quantities import parse_deadline

if TYPE_CHECKING:
    from jobs.service.api import JobService
    from jobs.service.views import JobEnergy, JobFilter, JobLine

_A_PAGE = 50  # jobs


def _state(value: Any) -> JobState:
    try:
        return JobState(value)
    except ValueError:
        raise typer.BadParameter(f"{value!r} is not one of {', '.join(JobState)}") from None


def _since(value: Any) -> datetime:
    from cluster.clock import utc_now

    if isinstance(value, datetime):
        return value
    try:
        since = parse_deadline(value)
    except ValueError as error:
        raise typer.BadParameter(f"{value!r}: {error}") from None
    return since if isinstance(since, datetime) else utc_now() - timedelta(seconds=since)


def jobs_command(
    limit: Annotated[
        int | None,
        typer.Option(
            parser=whole(1, 1_000_000),
            metavar="N",
            help="At most so many, by id from the last. Default: 50 on a terminal, else all.",
        ),
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="JOB_ID", help="Go on after this one, the last shown.")
    ] = None,
    state: Annotated[
        JobState | None, typer.Option(parser=_state, metavar="STATE", help="Only those in it.")
    ] = None,
    active: Annotated[
        bool, typer.Option("--active", help="Only submitted ones that have not ended.")
    ] = False,
    owner: Annotated[str | None, typer.Option(help="Only those of this owner.")] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only those with KEY=VALUE, repeatable.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            parser=_since,
            metavar="WHEN",
            help="Only those submitted since: a time such as 2026-12-01T00:00Z, or 2h ago.",
        ),
    ] = None,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """List the jobs of a store: state, progress, joules."""
    from jobs.service.views import JobFilter

    service = service_of(StoreArguments(store, endpoint_url))
    wanted = JobFilter(
        state=state, active=active, owner=owner, label=split_labels(label) or {}, since=since
    )
    paged = limit is not None or after is not None or (_on_terminal() and not as_json)
    most = (limit or _A_PAGE) if paged else None
    found, more = _listed(service, wanted, most, after)
    if not paged:
        found.sort(key=lambda job: (job.created_at, job.job_id))
    if as_json:
        show_json([_job_row(job) for job in found])
    elif found:
        _show(found)
        if more is not None:
            print(f"  {more}un0 jobs --after {found[-1].job_id}")
    elif after is not None:
        print(f"no jobs after {after} in {store}")
    elif wanted != JobFilter():
        print(f"no such jobs in {store}; `un0 jobs` without filters lists all")
    else:
        print(f"no jobs in {store}; `un0 generate --count 1000` makes one")


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _listed(
    service: JobService, wanted: JobFilter, most: int | None, after: str | None
) -> tuple[list[JobLine], str | None]:
    """The jobs, and words for those that follow; None if there are none."""
    from jobs.service.paging import token_after
    from jobs.service.views import MAX_PAGE_SIZE

    found: list[JobLine] = []
    token = "" if after is None else token_after(after)
    while True:
        lacking = MAX_PAGE_SIZE if most is None else min(most - len(found), MAX_PAGE_SIZE)
        page = service.jobs(wanted, lacking, token)
        found += page.jobs
        token = page.next_page_token
        if not token:
            return found, None
        if most is not None and len(found) >= most:
            return found, "more: " if page.left is None else f"{page.left:,} more: "


def _show(jobs: list[JobLine]) -> None:
    from rich.text import Text

    table = plain_table(
        "job", "state", "images", "model", "J/image", "owner", "submitted (UTC)",
        typed=("job", "model"), right=("images",), indent=2,
    )  # fmt: skip
    for job in jobs:
        table.add_row(
            job.job_id,
            job.state,
            f"{job.counts.committed:,} / {job.counts.total:,}",
            Text(job.model),
            _per_image(job.energy, job.counts.committed),
            Text(job.owner),
            f"{job.created_at:%Y-%m-%d %H:%M:%S}",
        )
    show_table(table, give_way=("submitted (UTC)", "owner", "J/image", "images", "model", "state"))


def _per_image(energy: JobEnergy, images: int) -> str:
    if energy.energy_j is None or not images:
        return UNKNOWN
    figures = (energy.energy_j, energy.low_j, energy.high_j)
    each = [None if value is None else value / images for value in figures]
    return f"{bounded(*each)} {quality_words(energy.quality)}"


def _job_row(job: JobLine) -> dict[str, object]:
    energy = job.energy
    return {
        "job_id": job.job_id,
        "state": job.state,
        "images": job.counts.committed,
        "count": job.counts.total,
        "model": job.model,
        "owner": job.owner,
        "submitted_at": job.created_at.isoformat(),
        "energy": {
            "energy_mj": _millijoules(energy.energy_j),
            "low_mj": _millijoules(energy.low_j),
            "high_mj": _millijoules(energy.high_j),
            "quality": energy.quality,
            "method": energy.method,
        },
        "priority": job.priority,
        "labels": job.labels,
    }


def _millijoules(energy_j: float | None) -> int | None:
    return None if energy_j is None else round(energy_j * 1e3)
