"""``un0 bench``: speed and energy of a model on this machine, of its engines alone with their share
of peak speed, or of the whole path into a store."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import UserError
from jobs.cli.options import EndpointUrl, Json, show_json, show_notes, show_table
from jobs.cli.outputs import millijoules, parse_outputs, show_paths
from jobs.cli.progress import progress
from un0.quantities import parse_count

if TYPE_CHECKING:
    import torch

    from cluster.end_to_end import Output
    from cluster.types import Precision
    from jobs.bench import BenchRow, PathRow
    from un0 import Un0Model

_BATCHES = "1,16,64,256"
_MOST_IMAGES = 10_000_000  # of a request


def bench_command(
    model: Annotated[
        str | None, typer.Argument(help="Name from `un0 models`, or a file. Default: bundled.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = _BATCHES,
    precision: Annotated[
        str | None, typer.Option(help="Measure only this precision. Default: all.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="Measure only this engine. Default: all.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    seconds: Annotated[
        float,
        typer.Option(
            min=0.05,
            help="Duration of each measurement in seconds; use 2 or more for reliable energy.",
        ),
    ] = 2.0,
    encoding: Annotated[
        str | None,
        typer.Option(
            help="Measure the whole path into a store instead, at the batch that jobs use: png, "
            "jpeg, webp, raw, a list of these, or all."
        ),
    ] = None,
    compression: Annotated[
        str | None, typer.Option(help="Of raw images: none, lz4 or zstd. Default: zstd.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            help="Of the whole path; what is written is deleted. Default: a temporary directory."
        ),
    ] = None,
    endpoint_url: EndpointUrl = None,
    as_json: Json = False,
) -> None:
    """Measure images/s and J/image of engines, by precision and batch, or of the whole path."""
    from jobs.bench import bench, paths
    from un0 import DEFAULT_MODEL, load_model
    from un0.sampler import find_device

    sizes = _sizes(batches)
    outputs = None if encoding is None else parse_outputs(encoding, compression)
    if outputs is None and (compression or store or endpoint_url):
        raise UserError(
            "--compression, --store and --endpoint-url are of the whole path; name an --encoding"
        )
    if outputs is not None and batches != _BATCHES:
        raise UserError(
            "--batches is of engines alone; leave it out, as a job's batch is its model's"
        )
    loaded, found = load_model(model or DEFAULT_MODEL), find_device(device)
    show_notes(loaded.notes)
    known = list(paths(loaded, found))
    wanted = [p for p in known if engine in (None, p[0]) and precision in (None, p[1])]
    if not wanted:
        there = ", ".join(f"{name} in {kind}" for name, kind in known)
        raise UserError(
            f"nothing here runs this model with engine {engine or 'any'} in {precision or 'any'} "
            f"precision; on this {found.type} there are {there}"
        )
    rows: Sequence[BenchRow | PathRow]
    if outputs is None:
        rows = _engines(bench(loaded, found, wanted, sizes, seconds), len(sizes), quiet=as_json)
    else:
        rows = _paths(loaded, found, wanted, outputs, seconds, store, endpoint_url, quiet=as_json)
    if as_json:
        show_json(_facts(model or DEFAULT_MODEL, loaded, found, rows))


def _engines(rows: Iterable[BenchRow], sizes: int, *, quiet: bool) -> list[BenchRow]:
    """The rows, shown engine by engine."""
    found: list[BenchRow] = []
    for row in rows:
        found.append(row)
        if not quiet and len(found) % sizes == 0:
            _show(found[-sizes:], title=len(found) == sizes)
    return found


def _facts(
    model: str, loaded: Un0Model, device: torch.device, rows: Sequence[BenchRow | PathRow]
) -> dict[str, Any]:
    from cluster.hardware.identify import host_name

    return {
        "model": model,
        "model_rev": loaded.rev,
        "model_notes": loaded.notes,
        "host_name": host_name(),
        "device": device.type,
        "rows": [asdict(row) for row in rows],
    }


def _paths(
    model: Un0Model,
    device: torch.device,
    wanted: Sequence[tuple[str, Precision]],
    outputs: Sequence[Output],
    seconds: float,
    store: str | None,
    endpoint_url: str | None,
    *,
    quiet: bool,
) -> list[PathRow]:
    from cluster.storage.open import open_store
    from jobs.bench import bench_paths

    opened = None if store is None else open_store(store, endpoint_url=endpoint_url)
    with progress("warming up", quiet=quiet) as step:
        rows = list(bench_paths(model, device, wanted, outputs, seconds, opened, step))
    if not quiet:
        show_paths(rows)
    return rows


def _sizes(text: str) -> list[int]:
    try:
        sizes = [parse_count(part) for part in text.split(",")]
    except ValueError:
        sizes = [0]
    if not all(1 <= size <= _MOST_IMAGES for size in sizes):
        raise UserError(f"--batches is {text!r}; give numbers of images such as 1,16,64")
    return sizes


def _show(rows: list[BenchRow], title: bool) -> None:
    from rich.table import Table

    from jobs.format import quality_words

    table = Table(box=None, padding=(0, 2), header_style="dim", show_header=title)
    widths = {"engine": 10, "precision": 9, "batch": 7, "images/s": 10, "mJ/image": 24}
    for name, width in {**widths, "known by": 16, "of roofline": 11}.items():
        left = name in ("engine", "precision", "known by")
        table.add_column(name, min_width=width, justify="left" if left else "right")
    for row in rows:
        share = row.roofline_share
        table.add_row(
            row.engine,
            row.precision,
            f"{row.batch:,}",
            f"{row.images_per_s:,.1f}",
            millijoules(row.energy_per_image_j, row.energy_low_j, row.energy_high_j),
            quality_words(row.energy_quality),
            "-" if share is None else f"{share:.0%}",
        )
    show_table(table)
