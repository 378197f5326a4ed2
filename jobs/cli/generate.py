"""Commands that run a job: generate, resume."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.errors import UserError
from cluster.stopping import STOP_S
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
    model: Annotated[
        str | None, typer.Argument(help="Name from `un0 models`, or a file. Default: bundled.")
    ] = None,
    count: Annotated[
        str | None, typer.Option(metavar="N", help="Images to generate: 1000, 1e6, 250k, 1.5M.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Ids or names, comma-separated, dealt out in turn.")
    ] = None,
    seed: Annotated[str | None, typer.Option(metavar="N", help="0 to 2**64-1. Default 0.")] = None,
    store: Store = DEFAULT_STORE,
    job_id: Annotated[str | None, typer.Option(help="Name of the job in the store.")] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, bf16, fp16, int8, fp8 (couplings) or fp8-full (decoder too)."),
    ] = None,
    encoding: Annotated[str | None, typer.Option(help="png, webp, jpeg or raw.")] = None,
    compression: Annotated[
        str | None, typer.Option(help="Of raw images: zstd (default), lz4 or none.")
    ] = None,
    shard_images: Annotated[
        str | None, typer.Option(metavar="N", help="Images per commit.")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(help="From submission: 90s, 15m, 2h30m; or a time: 2026-12-01T00:00Z."),
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(metavar="N", help="-100 to 100; higher goes first. Default 0."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(help="energy (default), deadline, throughput, cost or carbon."),
    ] = None,
    energy_budget: Annotated[
        str | None, typer.Option(help="The job pauses before it takes more: 500 J, 2 kJ, 1.5 kWh.")
    ] = None,
    owner: Annotated[str | None, typer.Option(help="Whom to report the energy to.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable.")] = None,
    spec: Annotated[
        Path | None,
        typer.Option(help="YAML or JSON file, or '-' for standard input; flags override."),
    ] = None,
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
    from jobs.spec import load_spec, parse_spec

    flags = {
        "model": model,
        "count": count,
        "classes": classes,
        "seed": seed,
        "job_id": job_id,
        "precision": precision,
        "encoding": encoding,
        "compression": compression,
        "shard_images": shard_images,
        "deadline": deadline,
        "priority": priority,
        "objective": objective,
        "energy_budget": energy_budget,
        "owner": owner,
        "labels": _split_labels(label),
    }
    data = load_spec(spec) if spec else {}
    data |= {name: value for name, value in flags.items() if value is not None}
    if "count" not in data:
        raise UserError("how many images? give --count N, or a --spec file with a count")
    source = f"job spec {spec}" if spec else "job"
    parsed = parse_spec(data, source)
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
    """Go on with a job that was stopped, killed or failed: only what is not committed runs."""
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


def _split_labels(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name:
            lack = "name" if equals else "'='"
            raise UserError(f"label {pair!r} has no {lack}; write --label team=vision")
        if labels.setdefault(name, value) != value:
            raise UserError(f"label {name!r} is given twice; keep {labels[name]!r} or {value!r}")
    return labels
