"""The command ``un0``."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from cluster.errors import ClusterError, UserError
from cluster.stopping import STOP_S
from jobs.cli import (
    bench,
    calibrate,
    doctor,
    explain,
    fleet,
    meters,
    models,
    report,
    simulate,
    store,
    train,
)
from jobs.cli.demo import demo_command
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
from jobs.cli.run import EXIT_FAILED, run_and_report
from jobs.listening import finish, listening
from jobs.output import with_output
from jobs.service import DEFAULT_STORE, generate, resume
from jobs.spec import load_spec, parse_spec
from un0.errors import Un0Error

EXIT_USAGE = 2

app = typer.Typer(
    name="un0",
    help="Bulk image generation with Un-0 at the lowest joules per image.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
)


@app.command("generate")
def generate_command(
    model: Annotated[
        str | None,
        typer.Argument(help="Name from `un0 models`, or a file. Default: the bundled model."),
    ] = None,
    count: Annotated[
        str | None, typer.Option(metavar="N", help="Number of images: 1000, 1e6, 250k, 1.5M.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(help="Class ids or names, comma-separated, used in turn. Default: all."),
    ] = None,
    seed: Annotated[
        str | None, typer.Option(metavar="N", help="Random seed, 0 to 2**64-1. Default 0.")
    ] = None,
    store: Store = DEFAULT_STORE,
    job_id: Annotated[
        str | None, typer.Option(help="Id of the job in the store. Default: from the time.")
    ] = None,
    precision: Annotated[
        str | None,
        typer.Option(help="fp32, bf16, fp16, int8, fp8 (couplings) or fp8-full (decoder as well)."),
    ] = None,
    encoding: Annotated[
        str | None, typer.Option(help="Image format: png, webp, jpeg or raw.")
    ] = None,
    shard_images: Annotated[
        str | None, typer.Option(metavar="N", help="Images per commit.")
    ] = None,
    deadline: Annotated[
        str | None,
        typer.Option(help="Time from submission (90s, 15m, 2h30m) or a date (2026-12-01T00:00Z)."),
    ] = None,
    priority: Annotated[
        str | None,
        typer.Option(metavar="N", help="-100 to 100; higher runs first. Default 0."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            help="What to optimise: energy (default), deadline, throughput, cost or carbon."
        ),
    ] = None,
    energy_budget: Annotated[
        str | None, typer.Option(help="Pause the job before it exceeds this: 500 J, 2 kJ, 1.5 kWh.")
    ] = None,
    owner: Annotated[
        str | None, typer.Option(help="Owner of the job, to group reports by.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE to group reports by; repeatable.")
    ] = None,
    spec: Annotated[
        Path | None,
        typer.Option(
            help="Job spec: YAML or JSON file, or '-' for standard input. Flags override it."
        ),
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
    """Generate images and write them, with their energy, to a store."""
    flags = {
        "model": model,
        "count": count,
        "classes": classes,
        "seed": seed,
        "job_id": job_id,
        "precision": precision,
        "encoding": encoding,
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


@app.command("resume")
def resume_command(
    job_id: JobArgument,
    model: Annotated[
        str | None, typer.Option(help="Where the job's model is now, if it has moved.")
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
    """Resume a job that was stopped, killed or failed. Committed images are not made again."""
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


app.command("demo")(demo_command)
store.add_to(app)
models.add_to(app)
meters.add_to(app)
doctor.add_to(app)
bench.add_to(app)
calibrate.add_to(app)
fleet.add_to(app)
explain.add_to(app)
report.add_to(app)
train.add_to(app)
simulate.add_to(app)


def command() -> int:
    """Run the command line; its exit code. User errors are one message and 2, other failures 1."""
    return with_output(_run)


def _run() -> int:
    try:
        _check_working_directory()
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except (UserError, Un0Error) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USAGE
    except ClusterError as error:
        print(f"failed: {error}", file=sys.stderr)
        return EXIT_FAILED
    return 0


def main() -> None:
    """Entry point of ``python -m jobs.cli.main``; that of ``un0`` is ``jobs.__main__``."""
    with listening(ends=True) as listener:
        finish(command(), listener.stop)


def _check_working_directory() -> None:
    """PyTorch, Ray and relative paths need one, and their own errors do not say so."""
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError(
            "the working directory no longer exists; cd to one that does, and try again"
        ) from None


if __name__ == "__main__":
    main()
