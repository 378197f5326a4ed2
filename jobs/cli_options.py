"""Options that several commands share, and their one way to print JSON."""

from __future__ import annotations

import base64
import json
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

Store = Annotated[str, typer.Option(help="file:///dir, a directory, or s3://bucket/prefix.")]
EndpointUrl = Annotated[
    str | None, typer.Option(help="S3 endpoint. Default: AWS_ENDPOINT_URL, then AWS.")
]
Replicas = Annotated[int | None, typer.Option(min=1, help="Default: as many as fit.")]
Address = Annotated[
    str | None, typer.Option(help="Existing Ray cluster. Default: RAY_ADDRESS, else start one.")
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]


def show_json(value: Any) -> None:
    """Print one JSON document as the last thing on standard output; bytes as base64."""

    def other(part: Any) -> str:
        return base64.b64encode(part).decode() if isinstance(part, bytes) else str(part)

    print(json.dumps(value, indent=2, default=other))


def show_table(table: Table) -> None:
    """Print a table, never cut short where the output is not a terminal."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=4000)
    console.print(table)
