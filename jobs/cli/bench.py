"""``un0 bench``: speed and energy of a model on this machine, and its share of peak speed."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import UserError
from jobs.cli.options import Json, show_json, show_notes, show_table
from un0.quantities import parse_count

if TYPE_CHECKING:
    from jobs.bench import BenchRow


_MOST_IMAGES = 10_000_000  # of a request


def bench_command(
    model: Annotated[
        str | None, typer.Argument(help="Name from `un0 models`, or a file. Default: bundled.")
    ] = None,
    batches: Annotated[str, typer.Option(help="Batch sizes, comma-separated.")] = "1,16,64,256",
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
    as_json: Json = False,
) -> None:
    """Measure images/s and J/image of every engine and precision, by batch size."""
    from cluster.hardware.identify import host_name
    from jobs.bench import bench, paths
    from un0 import DEFAULT_MODEL, load_model
    from un0.sampler import find_device

    sizes = _sizes(batches)
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
    rows = []
    for row in bench(loaded, found, wanted, sizes, seconds):
        rows.append(row)
        if not as_json and len(rows) % len(sizes) == 0:
            _show(rows[-len(sizes) :], title=len(rows) == len(sizes))
    if as_json:
        show_json(
            {
                "model": model or DEFAULT_MODEL,
                "model_rev": loaded.rev,
                "model_notes": loaded.notes,
                "host_name": host_name(),
                "device": found.type,
                "rows": [asdict(row) for row in rows],
            }
        )


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
            _millijoules(row),
            quality_words(row.energy_quality),
            "-" if share is None else f"{share:.0%}",
        )
    show_table(table)


def _millijoules(row: BenchRow) -> str:
    def show(joules: Any) -> str:
        return f"{1e3 * joules:.3g}"

    if row.energy_per_image_j is None:
        return "-"
    if row.energy_low_j is None or row.energy_high_j is None:
        return show(row.energy_per_image_j)
    bounds = f"{show(row.energy_low_j)} to {show(row.energy_high_j)}"
    return f"{show(row.energy_per_image_j)} ({bounds})"
