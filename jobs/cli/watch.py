"""``un0 watch``: follow jobs until they end; Ctrl-C detaches, and they go on."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cluster.errors import Retryable
from cluster.states import JobState
from jobs.cli.asking import (
    StoreArguments,
    energy_words,
    exit_code_of,
    service_of,
    state_words,
)
from jobs.cli.options import EndpointUrl, Json, Store, show_json
from jobs.defaults import DEFAULT_STORE, JOB_ID
from jobs.format import duration

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobs.service.api import JobService
    from jobs.service.views import JobPage, JobView

T = TypeVar("T")
EVERY_S = 1.0
MOST_SHOWN = 20  # jobs at once
#: Reasons to be paused that only somebody can change.
_STUCK = ("user_request", "energy_budget", "owner_limit", "model_changed", "internal")


def _optional_job(value: str | None) -> str | None:
    if value is not None and not JOB_ID.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is no job id; `un0 jobs` lists those of a store")
    return value


def watch_command(
    job_id: Annotated[
        str | None,
        typer.Argument(help="The job. Default: all that have not ended.", callback=_optional_job),
    ] = None,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Follow a job, or all that have not ended, live. Ctrl-C detaches: they go on.

    Exit code 0 if the job is completed, or nobody watches any more; 1 if it ended otherwise.
    """
    service = service_of(StoreArguments(store, endpoint_url))
    try:
        if job_id is None:
            _follow_all(service, quiet=as_json)
            return
        job = follow(service, job_id, lambda job: job.state.is_terminal, quiet=as_json)
    except KeyboardInterrupt:
        print("detached; what was submitted goes on", file=sys.stderr)
        return
    if as_json:
        show_json(job.model_dump(mode="json"))
    else:
        from jobs.cli.status import lines_of

        print("\n".join(lines_of(job)))
    raise typer.Exit(exit_code_of(job.state))


def is_over(job: JobView) -> bool:
    """Whether there is nothing to wait for: it has ended, or only somebody can make it go on."""
    if job.state == JobState.PAUSED:
        return job.reason is None or job.reason.code in _STUCK
    return job.state.is_terminal


def follow(
    service: JobService,
    job_id: str,
    over: Callable[[JobView], bool] = is_over,
    *,
    quiet: bool = False,
) -> JobView:
    """Show the job until it is over, and return it as it is then: live on a terminal, elsewhere a
    line whenever its state changes."""
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True, highlight=False)
    watched = console.is_terminal and not quiet
    live = Live(console=console, transient=True, auto_refresh=False) if watched else None
    said = ""
    with live or nullcontext():
        while True:
            job = _tried(lambda: service.status(job_id))
            if job is not None:
                words = state_words(job)
                if live is not None:
                    with suppress(OSError):
                        live.update(view_of(job), refresh=True)
                elif words != said and not quiet:
                    console.print(f"{job.job_id} {words}", markup=False, soft_wrap=True)
                said = words
                if over(job):
                    return job
            time.sleep(EVERY_S)


def view_of(job: JobView) -> RenderableType:
    """One job: progress, rate, joules."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    counts = job.counts
    facts = Table.grid(padding=(0, 2))
    facts.add_row("job", Text(job.job_id, "bold"))
    facts.add_row("state", Text(state_words(job)))
    facts.add_row("images", f"{counts.committed:,} of {counts.total:,} committed")
    if job.rate_images_per_s is not None:
        left = "" if job.eta_s is None else f", {duration(job.eta_s)} to go"
        facts.add_row("rate", f"{job.rate_images_per_s:,.0f} images/s{left}")
    facts.add_row("energy", energy_words(job.energy, counts.committed))
    made = counts.committed + counts.in_flight
    bar = Table.grid()
    bar.add_row(ProgressBar(total=counts.total, completed=made, width=60))
    return Group(bar, facts, Text("Ctrl-C detaches; the job goes on", "dim"))


def _follow_all(service: JobService, *, quiet: bool) -> None:
    """Show the jobs that have not ended, until there are none or, without a terminal, once."""
    from rich.console import Console
    from rich.live import Live

    from jobs.service.views import JobFilter

    console = Console(highlight=False)
    wanted = JobFilter(active=True)
    if quiet or not console.is_terminal:
        page = service.jobs(wanted, MOST_SHOWN)
        if quiet:
            show_json([line.model_dump(mode="json") for line in page.jobs])
        else:
            console.print(_table(page), soft_wrap=True)
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while True:
            page_now = _tried(lambda: service.jobs(wanted, MOST_SHOWN))
            if page_now is not None:
                live.update(_table(page_now), refresh=True)
                if not page_now.jobs:
                    break
            time.sleep(EVERY_S)
    console.print("no job is active; `un0 jobs` lists all")


def _table(page: JobPage) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from jobs.cli.options import plain_table

    if not page.jobs:
        return Text("no job is active; `un0 jobs` lists all")
    table = plain_table("job", "state", "images", "owner", typed=("job",), right=("images",))
    for job in page.jobs:
        counts = f"{job.counts.committed:,} / {job.counts.total:,}"
        table.add_row(job.job_id, job.state, counts, Text(job.owner))
    more = [Text("and more: `un0 jobs --active`", "dim")] if page.next_page_token else []
    return Group(table, *more)


def _tried(ask: Callable[[], T]) -> T | None:
    """The answer; None while the store, or the server, does not give one."""
    try:
        return ask()
    except Retryable:
        return None
