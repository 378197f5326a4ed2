"""Options that several commands share, and their one way to print JSON."""

from __future__ import annotations

import base64
import json
import math
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from jobs.spec import JOB_ID

Store = Annotated[str, typer.Option(help="file:///dir, a directory, or s3://bucket/prefix.")]
EndpointUrl = Annotated[
    str | None, typer.Option(help="S3 endpoint. Default: AWS_ENDPOINT_URL, then AWS.")
]
SingleWriter = Annotated[
    bool,
    typer.Option(
        "--single-writer",
        help="Accept a server without conditional writes: one run of a job at a time.",
    ),
]
Replicas = Annotated[int | None, typer.Option(min=1, help="Default: as many as fit.")]
Address = Annotated[
    str | None, typer.Option(help="Existing Ray cluster. Default: RAY_ADDRESS, else start one.")
]
StopWithin = Annotated[
    float,
    typer.Option(
        min=2.0,
        help="Seconds from Ctrl-C, SIGTERM or SIGHUP to the end of this process. A shard that "
        "would not be done by half of it is given up.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def _job_id(value: str) -> str:
    if not JOB_ID.fullmatch(value):
        raise typer.BadParameter(f"{value!r} is no job id; `un0 jobs` lists those of a store")
    return value


JobArgument = Annotated[
    str, typer.Argument(help="The job, as `un0 jobs` lists it.", callback=_job_id)
]


def show_json(value: Any) -> None:
    """Print one JSON document as the last thing on standard output; bytes as base64."""

    def other(part: Any) -> str:
        return base64.b64encode(part).decode() if isinstance(part, bytes) else str(part)

    print(json.dumps(_finite(value), indent=2, default=other, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with null where JSON has no word: NaN and infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def plain_table(*columns: str) -> Table:
    """A table without lines, of left-aligned columns."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for column in columns:
        table.add_column(column)
    return table


def show_table(table: Table) -> None:
    """Print a table, never cut short where the output is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=4000)
    console.print(table)
