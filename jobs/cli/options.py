"""Options, tables and JSON output that several commands share."""

from __future__ import annotations

import base64
import json
import math
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import Annotated, Any

import typer
from rich.console import Console, ConsoleDimensions
from rich.measure import Measurement
from rich.table import Column, Table

from jobs.defaults import JOB_ID
from un0.quantities import parse_count

_ENDLESS = 4000  # characters: no table is as wide


def whole(least: int | None = None, most: int | None = None) -> Callable[[Any], int]:
    """A parser of whole numbers (1000, 1e6, 250k) for flags, within inclusive bounds."""

    def read(value: Any) -> int:
        try:
            number = parse_count(value)
        except ValueError as error:
            raise typer.BadParameter(f"{value!r}: {error}") from None
        if (least is not None and number < least) or (most is not None and number > most):
            bounds = f"from {least}" if most is None else f"{least} to {most}"
            raise typer.BadParameter(f"{number} is out of range; give {bounds}")
        return number

    return read


def quantity(parse: Callable[[Any], float]) -> Callable[[Any], float]:
    """A parser for flags, of one of ``un0.quantities``."""

    def read(value: Any) -> float:
        try:
            return parse(value)
        except ValueError as error:
            raise typer.BadParameter(f"{value!r}: {error}") from None

    return read


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
Sse = Annotated[
    str | None,
    typer.Option(help="Encryption by the S3 server: AES256 or aws:kms. Default: UN0_SSE."),
]
SseKmsKey = Annotated[
    str | None, typer.Option(help="Key id for --sse aws:kms. Default: the bucket's key.")
]
Replicas = Annotated[
    int | None, typer.Option(parser=whole(1), metavar="N", help="Default: as many as fit.")
]
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


def _job_id(value: str | None) -> str | None:
    if value is not None and not JOB_ID.fullmatch(value):  # None while a shell completes
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


def show_notes(notes: Sequence[str]) -> None:
    """Print notes about the result on standard error."""
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _finite(value: Any) -> Any:
    """The value with null in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return value


def plain_table(
    *columns: str, typed: Collection[str] = (), right: Collection[str] = (), indent: int = 0
) -> Table:
    """A table without lines.

    typed: columns with words that users type or paste, such as ids: these are never broken.
    right: columns that are right-aligned.
    """
    table = Table(box=None, padding=(0, 2, 0, indent), header_style="dim")
    for column in columns:
        table.add_column(
            column, no_wrap=column in typed, justify="right" if column in right else "left"
        )
    return table


def show_table(table: Table, give_way: Sequence[str] = ()) -> None:
    """Print a table: whole where the output is not a terminal.

    On a terminal no word is cut. Where it is too narrow, the columns of ``give_way`` are left
    out, the first one first, and named below.
    """
    console = Console()
    if not console.is_terminal:
        Console(width=_ENDLESS).print(table)
        return
    left_out = []
    for name in give_way:
        if _spare(table, console) >= 0:
            break
        table = _without(table, name)
        left_out.append(name)
    _fit(table, console)
    console.print(table, crop=False)
    if left_out:
        console.print(f"Too narrow for: {', '.join(left_out)} (--json has all).", style="dim")


def _spare(table: Table, console: Console) -> int:
    """Characters that are left of the console's width if no word is cut; negative if too few."""
    _, right, _, left = table.padding
    return console.width - sum(_widths(c, console)[0] + left + right for c in table.columns)


def _fit(table: Table, console: Console) -> None:
    """Share the console's width: to each column its longest word, what is left to the first."""
    spare = _spare(table, console)
    console.size = ConsoleDimensions(console.width - min(spare, 0), console.height)
    for column in table.columns:
        least, most = _widths(column, console)
        column.width = min(most, least + max(spare, 0))
        spare -= column.width - least


def _widths(column: Column, console: Console) -> tuple[int, int]:
    """Characters of a column whose words are not cut, and of one whose cells are not broken."""
    options = console.options.update(width=_ENDLESS)
    sizes = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    given = column.min_width or 0  # so that tables below each other line up
    most = max(given, *(size.maximum for size in sizes))
    return (most if column.no_wrap else max(given, *(size.minimum for size in sizes))), most


def _without(table: Table, name: str) -> Table:
    columns = [replace(column) for column in table.columns if column.header != name]
    fewer = Table(*columns, box=None, padding=table.padding, header_style=table.header_style)
    fewer.rows = table.rows
    return fewer
