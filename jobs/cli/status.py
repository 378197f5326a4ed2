"""``un0 status``, and what is asked of a job: cancel, pause."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.asking import (
    StoreArguments,
    asked,
    compared,
    energy_words,
    quote_words,
    service_of,
    state_words,
)
from jobs.cli.options import (
    EndpointUrl,
    JobArgument,
    Json,
    SingleWriter,
    Sse,
    SseKmsKey,
    Store,
    show_json,
)
from jobs.defaults import DEFAULT_STORE
from jobs.format import duration, joules

if TYPE_CHECKING:
    from jobs.service.views import JobView

ReasonOption = Annotated[str, typer.Option(metavar="TEXT", help="Why, for its history.")]


def status_command(
    job_id: JobArgument,
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Show how a job stands: its state and why, progress, joules, predicted and measured."""
    job = service_of(StoreArguments(store, endpoint_url)).status(job_id)
    if as_json:
        show_json(job.model_dump(mode="json"))
    else:
        print("\n".join(lines_of(job)))


def cancel_command(
    job_id: JobArgument,
    reason: ReasonOption = "",
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    single_writer: SingleWriter = False,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    as_json: Json = False,
) -> None:
    """End a submitted job for good. What is committed stays."""
    where = StoreArguments(store, endpoint_url, single_writer, sse, sse_kms_key)
    asked("cancel", service_of(where, writes=True), job_id, reason, as_json=as_json)


def pause_command(
    job_id: JobArgument,
    reason: ReasonOption = "",
    store: Store = DEFAULT_STORE,
    endpoint_url: EndpointUrl = None,
    single_writer: SingleWriter = False,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    as_json: Json = False,
) -> None:
    """Stop running a submitted job, until `un0 resume`."""
    where = StoreArguments(store, endpoint_url, single_writer, sse, sse_kms_key)
    asked("pause", service_of(where, writes=True), job_id, reason, as_json=as_json)


def lines_of(job: JobView) -> list[str]:
    """All that is known of the job, for people."""
    counts = job.counts
    done = f"{counts.committed:,} of {counts.total:,} committed"
    if counts.in_flight:
        done += f", {counts.in_flight:,} more in hand"
    if counts.failed:
        done += f", {counts.failed:,} lost with shards that failed"
    facts = [
        ("state", state_words(job)),
        ("images", f"{done}, of {job.model}"),
        ("rate", _rate(job)),
        ("energy", energy_words(job.energy, counts.committed)),
        ("overhead", _overhead(job)),
        ("quote", None if job.quote is None else quote_words(job.quote)),
        ("accuracy", compared(job)),
        ("owner", job.owner + "".join(f", {k}={v}" for k, v in job.labels.items())),
        ("submitted", _time(job.created_at)),
        ("started", _time(job.started_at)),
        ("finished", _time(job.finished_at)),
        ("deadline", _time(job.deadline_at)),
        ("server", job.server_id),
        ("results", job.results.uri),
    ]
    return [
        f"Job {job.job_id}",
        *(f"  {name:<10}{value}" for name, value in facts if value is not None),
    ]


def _rate(job: JobView) -> str | None:
    if job.rate_images_per_s is None:
        return None
    words = f"{job.rate_images_per_s:,.0f} images/s"
    if job.eta_s is not None:
        words += f", {duration(job.eta_s)} to go"
    if job.bottleneck is not None:
        words += f"; the bottleneck is {job.bottleneck}"
    return words


def _overhead(job: JobView) -> str | None:
    overhead_j = job.energy.overhead_j
    return None if overhead_j is None else f"{joules(overhead_j)} for loading and idling"


def _time(at: datetime | None) -> str | None:
    return None if at is None else f"{at:%Y-%m-%d %H:%M:%S} UTC"
