"""``un0 calibrate``: measure a model's speed and energy here, for the scheduler."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args

import typer

from cluster.errors import UserError
from cluster.hardware.identify import host_name
from jobs.cli.options import EndpointUrl, Json, Sse, SseKmsKey, plain_table, show_json, show_table
from jobs.cli.outputs import parse_outputs, show_paths
from jobs.cli.progress import progress
from jobs.format import bounded, duration, energy_per_image, quality_words
from jobs.listening import EXIT_INTERRUPTED
from un0.catalog import DEFAULT_MODEL
from un0.suggest import choose

if TYPE_CHECKING:
    from cluster.calibration import Calibration, Point
    from cluster.types import Precision

_WHY = (
    "* the batch that every machine of this kind uses: an image's bytes belong to it. The profile\n"
    "  holds this one; the others show what they would do (docs/adr/0002-tiles.md)."
)


def calibrate_command(
    model: Annotated[
        str, typer.Argument(help="Name from `un0 models`, or a file.")
    ] = DEFAULT_MODEL,
    precision: Annotated[
        str, typer.Option(help="Comma-separated: fp32, bf16, fp16.")
    ] = "fp32,bf16",
    seconds: Annotated[float, typer.Option(help="Of each window of work, from 2.")] = 2.0,
    encoding: Annotated[
        str,
        typer.Option(
            help="Of the whole path into the store, comma-separated: png, jpeg, webp, raw; all; or "
            "none to leave it out."
        ),
    ] = "png",
    store: Annotated[
        str | None,
        typer.Option(
            help="Save what is measured there, for the fleet; the whole path leads there too. "
            "Default: save nothing, write to a temporary directory."
        ),
    ] = None,
    endpoint_url: EndpointUrl = None,
    sse: Sse = None,
    sse_kms_key: SseKmsKey = None,
    as_json: Json = False,
) -> None:
    """Measure this machine: images/s and J/image by batch, precision, encoding; load, idle."""
    from cluster.clock import utc_now
    from cluster.storage.open import open_store
    from cluster.storage.profiles import save_profile

    precisions = _precisions(precision)
    outputs = [] if encoding.strip() == "none" else parse_outputs(encoding)
    opened = (
        open_store(store, endpoint_url=endpoint_url, sse=sse, sse_kms_key=sse_kms_key)
        if store
        else None
    )
    from cluster.calibration import calibrate  # PyTorch takes a second to import

    with progress("loading", quiet=as_json) as step:
        try:
            found = calibrate(
                model,
                precisions=precisions,
                seconds=seconds,
                outputs=outputs,
                store=opened,
                on_step=step,
            )
        except KeyboardInterrupt:
            print("interrupted; nothing was saved", file=sys.stderr)
            raise typer.Exit(EXIT_INTERRUPTED) from None
    profiles = found.profiles()
    if opened is not None:
        for profile in profiles:
            save_profile(opened, profile, utc_now())
    if as_json:
        show_json({**_facts(found), "saved": [asdict(p) for p in profiles] if store else []})
        return
    _show(found)
    if len(profiles) < len(found.loads):
        print("A precision whose joules are unknown has no profile.", file=sys.stderr)
    if store and profiles:
        print(f"Saved in {store}: {', '.join(p.model.rpartition('/')[2] for p in profiles)}.")


def _precisions(text: str) -> list[Precision]:
    from cluster.types import Precision

    names = list(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    known = get_args(Precision)
    for name in names or [text]:
        if name not in known:
            raise UserError(f"--precision {name!r} is not known; {choose(name, known)}")
    return cast("list[Precision]", names)


def _facts(found: Calibration) -> dict[str, Any]:
    from jobs.bench import path_row

    return {
        "host_name": host_name(),
        "hardware": found.hardware,
        "provider": found.provider,
        "model": found.model,
        "model_rev": found.model_rev,
        "threads": found.threads,
        "idle": asdict(found.idle),
        "loads": [
            {
                "precision": load.precision,
                "duration_s": load.duration_s,
                "energy": load.energy.model_dump(),
            }
            for load in found.loads
        ],
        "points": [_point(point, found.share_of_best(point)) for point in found.points],
        "pipelines": [asdict(path_row(path)) for path in found.paths],
    }


def _point(point: Point, share: float) -> dict[str, Any]:
    low_j, high_j = point.bounds_j
    return {
        "precision": point.precision,
        "batch_size": point.batch_size,
        "used": point.used,
        "windows": len(point.windows),
        "images": sum(window.images for window in point.windows),
        "images_per_s": point.images_per_s,
        "share_of_best": share,
        "energy_per_image_j": point.energy_per_image_j,
        "low_j": low_j,
        "high_j": high_j,
        "quality": point.quality,
    }


def _show(found: Calibration) -> None:
    from rich.text import Text

    print(f"{found.model} on {found.hardware}, metered by {found.provider}")
    for load in found.loads:
        energy = energy_per_image(load.energy, 1)
        print(f"  loading in {load.precision}: {duration(load.duration_s)}, {energy}")
    idle = found.idle
    if idle.power_w is None:
        print("  idling, loaded: unknown; others keep this machine busy, or nothing meters it\n")
    else:
        print(f"  idling, loaded: {idle.power_w:.3g} W {idle.quality.replace('_', ' ')}\n")
    table = plain_table("precision", "batch", "images/s", "of the best", "an image", "quality")
    for point in found.points:
        table.add_row(
            point.precision,
            Text(f"{point.batch_size}{' *' * point.used}"),
            f"{point.images_per_s:,.0f}",
            f"{found.share_of_best(point):.0%}",
            bounded(point.energy_per_image_j, *point.bounds_j),
            quality_words(point.quality),
        )
    show_table(table)
    print(_WHY)
    if found.paths:
        from jobs.bench import path_row

        print("\nThe whole path into the store, at the batch that is used:\n")
        show_paths([path_row(path) for path in found.paths])
