"""The command ``un0``: run jobs, look at them, and at the models."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from cluster.errors import ClusterError, UserError
from jobs import cli_meters, cli_models, cli_report, cli_store, cli_train
from jobs.cli_demo import demo_command
from jobs.cli_options import Address, EndpointUrl, Json, Replicas, Store, show_json
from jobs.display import follow
from jobs.render import summary
from jobs.service import DEFAULT_STORE, JobResult, OnSnapshot, generate, resume
from jobs.spec import JobSpec, load_spec, parse_spec
from un0.errors import Un0Error

EXIT_FAILED, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130

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
        str | None, typer.Argument(help="Name from `un0 models`, or a file. Default: bundled.")
    ] = None,
    count: Annotated[int | None, typer.Option(help="Images to generate.")] = None,
    classes: Annotated[
        str | None, typer.Option(help="Ids or names, comma-separated, dealt out in turn.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="0 to 2**64-1. Default 0.")] = None,
    store: Store = DEFAULT_STORE,
    job_id: Annotated[str | None, typer.Option(help="Name of the job in the store.")] = None,
    precision: Annotated[str | None, typer.Option(help="fp32, bf16 or fp16.")] = None,
    encoding: Annotated[str | None, typer.Option(help="png, webp, jpeg or raw.")] = None,
    shard_images: Annotated[int | None, typer.Option(help="Images per commit.")] = None,
    deadline: Annotated[str | None, typer.Option(help="Watched: 90s, 15m, 2h30m.")] = None,
    owner: Annotated[str | None, typer.Option(help="Whom to report the energy to.")] = None,
    label: Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable.")] = None,
    spec: Annotated[Path | None, typer.Option(help="YAML or JSON; flags override.")] = None,
    replicas: Replicas = None,
    address: Address = None,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Generate images and commit them, with their joules, to a store."""
    flags = {
        "model": model,
        "count": count,
        "classes": _split_classes(classes),
        "seed": seed,
        "job_id": job_id,
        "precision": precision,
        "encoding": encoding,
        "shard_images": shard_images,
        "deadline": deadline,
        "owner": owner,
        "labels": _split_labels(label),
    }
    data = load_spec(spec) if spec else {}
    data |= {name: value for name, value in flags.items() if value is not None}
    if "count" not in data:
        raise UserError("how many images? give --count N, or a --spec file with a count")
    source = f"job spec {spec}" if spec else "job"
    _run(parse_spec(data, source), None, store, replicas, address, endpoint_url, as_json)


@app.command("resume")
def resume_command(
    job_id: Annotated[str, typer.Argument(help="The job, as `un0 jobs` lists it.")],
    store: Store = DEFAULT_STORE,
    replicas: Replicas = None,
    address: Address = None,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Go on with a job that was stopped, killed or failed: only what is not committed runs."""
    _run(None, job_id, store, replicas, address, endpoint_url, as_json)


def _run(
    spec: JobSpec | None,
    job_id: str | None,
    store: str,
    replicas: int | None,
    address: str | None,
    endpoint_url: str | None,
    as_json: bool,
) -> None:
    """Run a new job, or resume one, with a display; exit as the job ended."""
    console = Console(stderr=True)

    def start(on_snapshot: OnSnapshot | None) -> JobResult:
        how: dict[str, Any] = {
            "endpoint_url": endpoint_url,
            "replicas": replicas,
            "address": address,
            "on_snapshot": on_snapshot,
        }
        return generate(spec, store, **how) if spec else resume(str(job_id), store, **how)

    deadline_s = spec.deadline if spec else None
    with (
        redirect_stdout(sys.stderr),  # where Ray may print; our own output is one thing
        follow(console, deadline_s, quiet=as_json) as on_snapshot,
    ):
        result = start(on_snapshot)
    if deadline_s is not None and result.seconds + result.startup_s > deadline_s:
        console.print(f"The deadline of {deadline_s:,.0f} s was missed.", style="red")
    if result.state != "completed":
        hint = f"un0 resume {result.job_id} --store {store}"
        console.print(f"What is committed stays. Continue with: {hint}", soft_wrap=True)
    show_json(result.as_dict()) if as_json else print(summary(result))
    if result.state != "completed":
        raise typer.Exit(EXIT_INTERRUPTED if result.state == "stopped" else EXIT_FAILED)


def _split_classes(text: str | None) -> list[int | str] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",") if part.strip()]
    return [int(part) if part.lstrip("-").isdecimal() else part for part in parts]


def _split_labels(pairs: list[str] | None) -> dict[str, str] | None:
    if not pairs:
        return None
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"label {pair!r} has no '='; write --label team=vision")
    return dict(pair.split("=", 1) for pair in pairs)


app.command("demo")(demo_command)
cli_store.add_to(app)
cli_models.add_to(app)
cli_meters.add_to(app)
cli_report.add_to(app)
cli_train.add_to(app)


def main() -> None:
    """Entry point: user errors are one message and exit 2, other failures exit 1."""
    try:
        app()
    except (UserError, Un0Error) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(EXIT_USAGE)
    except ClusterError as error:
        print(f"failed: {error}", file=sys.stderr)
        sys.exit(EXIT_FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    main()
