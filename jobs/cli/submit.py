"""``un0 submit``: write a job for the servers of its store to run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from jobs.cli.asking import (
    StoreArguments,
    exit_code_of,
    images_words,
    paste,
    quote_words,
    service_of,
    state_words,
    user_here,
)
from jobs.cli.job_options import (
    Classes,
    Compression,
    Count,
    Deadline,
    Encoding,
    EnergyBudget,
    Inputs,
    JobId,
    Label,
    Model,
    Objective,
    OnDeadline,
    Owner,
    Precision,
    Priority,
    Seed,
    ShardImages,
    Spec,
    Strict,
    read_job,
)
from jobs.cli.options import (
    EndpointUrl,
    Json,
    SingleWriter,
    Sse,
    SseKmsKey,
    Store,
    show_json,
    show_notes,
)
from jobs.defaults import DEFAULT_STORE

if TYPE_CHECKING:
    from jobs.service.api import JobService
    from jobs.service.views import JobView
    from jobs.spec import JobSpec


def submit_command(
    model: Model = None,
    count: Count = None,
    inputs: Inputs = None,
    strict: Strict = False,
    classes: Classes = None,
    seed: Seed = None,
    store: Store = DEFAULT_STORE,
    job_id: JobId = None,
    precision: Precision = None,
    encoding: Encoding = None,
    compression: Compression = None,
    shard_images: ShardImages = None,
    deadline: Deadline = None,
    on_deadline: OnDeadline = None,
    priority: Priority = None,
    objective: Objective = None,
    energy_budget: EnergyBudget = None,
    owner: Owner = None,
    label: Label = None,
    spec: Spec = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(metavar="KEY", help="Tries with the same key make one job, such as a UUID."),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when it has ended.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check it and say what it would take; write nothing.")
    ] = False,
    endpoint_url: EndpointUrl = None,
    single_writer: SingleWriter = False,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    as_json: Json = False,
) -> None:
    """Submit a job for servers to run, and return at once."""
    parsed = read_job(
        spec,
        label,
        model=model,
        count=count,
        inputs=inputs,
        strict=strict,
        classes=classes,
        seed=seed,
        job_id=job_id,
        precision=precision,
        encoding=encoding,
        compression=compression,
        shard_images=shard_images,
        deadline=deadline,
        on_deadline=on_deadline,
        priority=priority,
        objective=objective,
        energy_budget=energy_budget,
        owner=owner,
    )
    where = StoreArguments(store, endpoint_url, single_writer, sse, sse_kms_key)
    service = service_of(where, writes=not dry_run)
    if dry_run:
        _show_dry_run(service, parsed, as_json=as_json)
        return
    job = service.submit(parsed, by=user_here(), idempotency_key=idempotency_key)
    if not as_json:
        _show(job, where)
    if wait:
        from jobs.cli.watch import follow

        job = follow(service, job.job_id, quiet=as_json)
    if as_json:
        show_json(job.model_dump(mode="json"))
    if wait:
        raise typer.Exit(exit_code_of(job.state))


def _show_dry_run(service: JobService, spec: JobSpec, *, as_json: bool) -> None:
    quote = service.quote(spec)
    if as_json:
        show_json({"job_id": None, "state": None, "quote": quote.model_dump(mode="json")})
    else:
        print(f"{images_words(spec)} would be submitted; nothing is written")
        print(f"  quote     {quote_words(quote)}")
        show_notes(quote.notes)


def _show(job: JobView, where: StoreArguments) -> None:
    print(f"Job {job.job_id}: {job.counts.total:,} images of {job.model}")
    print(f"  state     {state_words(job)}")
    if job.quote is not None:
        print(f"  quote     {quote_words(job.quote)}")
    print(f"  follow    {paste('watch', job.job_id, where)}")
    print(f"  end       {paste('cancel', job.job_id, where)}", flush=True)
    if job.quote is not None:
        show_notes(job.quote.notes)
