"""Commands that run a job: generate, resume."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer

from cluster.errors import UserError
from cluster.stopping import STOP_S
from jobs.cli.asking import StoreArguments, asked, is_submitted, service_of
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
    Address,
    EndpointUrl,
    JobArgument,
    Json,
    Replicas,
    SingleWriter,
    Sse,
    SseKmsKey,
    StopWithin,
    Store,
)
from jobs.defaults import DEFAULT_STORE


def generate_command(
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
    priority: Priority = None,
    objective: Objective = None,
    energy_budget: EnergyBudget = None,
    owner: Owner = None,
    label: Label = None,
    spec: Spec = None,
    replicas: Replicas = None,
    address: Address = None,
    endpoint_url: EndpointUrl = None,
    single_writer: SingleWriter = False,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    stop_within: StopWithin = STOP_S,
    as_json: Json = False,
) -> None:
    """Generate images and commit them, with their joules, to a store."""
    from jobs.cli.run import run_and_report
    from jobs.service.foreground import generate

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
        priority=priority,
        objective=objective,
        energy_budget=energy_budget,
        owner=owner,
    )
    where = _where(
        store, endpoint_url, single_writer, sse, sse_kms_key, replicas, address, stop_within
    )
    run_and_report(partial(generate, parsed), where, as_json)


def resume_command(
    job_id: JobArgument,
    model: Annotated[
        str | None, typer.Option(help="Where its model is now, if it has moved.")
    ] = None,
    store: Store = DEFAULT_STORE,
    replicas: Replicas = None,
    address: Address = None,
    endpoint_url: EndpointUrl = None,
    single_writer: SingleWriter = False,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    stop_within: StopWithin = STOP_S,
    as_json: Json = False,
) -> None:
    """Go on with a job that was stopped, killed or failed: only what is not committed runs.

    A job that was submitted is run by the service's servers: this asks them to go on with a paused
    one, and returns. Any other runs here, in the foreground.
    """
    where_kept = StoreArguments(store, endpoint_url, single_writer, sse, sse_kms_key)
    if is_submitted(where_kept, job_id):
        if model is not None or replicas is not None or address is not None:
            raise UserError(
                f"job {job_id} was submitted, and its servers run it where they are: leave out "
                "--model, --replicas and --address"
            )
        asked("resume", service_of(where_kept, writes=True), job_id, "", as_json=as_json)
        return
    from jobs.cli.run import run_and_report
    from jobs.service.foreground import resume

    where = _where(
        store, endpoint_url, single_writer, sse, sse_kms_key, replicas, address, stop_within
    )
    run_and_report(partial(resume, job_id, model=model), where, as_json)


def _where(
    store: str,
    endpoint_url: str | None,
    single_writer: bool,
    sse: str | None,
    sse_kms_key: str | None,
    replicas: int | None,
    address: str | None,
    stop_within_s: float,
) -> dict[str, Any]:
    """The options that say where a job runs and is kept, by the names of ``jobs.generate``."""
    return {
        "store": store,
        "endpoint_url": endpoint_url,
        "single_writer": single_writer,
        "sse": sse,
        "sse_kms_key": sse_kms_key,
        "replicas": replicas,
        "address": address,
        "stop_within_s": stop_within_s,
    }
