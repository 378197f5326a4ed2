"""Encodings as `un0 bench` and `un0 calibrate` take them, and their figures in tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast, get_args

from cluster.errors import UserError
from cluster.stage_times import STAGES
from cluster.types import Compression, ImageEncoding
from jobs.cli.options import plain_table, show_table
from jobs.format import quality_words
from un0.suggest import choose

if TYPE_CHECKING:
    from cluster.end_to_end import Output
    from jobs.bench import PathRow

ENCODINGS: tuple[ImageEncoding, ...] = get_args(ImageEncoding)
COMPRESSIONS: tuple[Compression, ...] = get_args(Compression)


def parse_outputs(text: str, compression: str | None = None) -> list[Output]:
    """The ways to write images that ``--encoding`` names: comma-separated, or ``all``.

    compression: of the raw ones. Raises UserError for names that are not known.
    """
    from cluster.end_to_end import Output  # PyTorch takes a second to import

    names = [part.strip() for part in text.split(",") if part.strip()]
    names = list(dict.fromkeys(ENCODINGS if names == ["all"] else names))
    for name in names or [text]:
        if name not in ENCODINGS:
            raise UserError(f"--encoding {name!r} is not known; {choose(name, ENCODINGS)}, or all")
    if compression is not None and compression not in COMPRESSIONS:
        known = choose(compression, COMPRESSIONS)
        raise UserError(f"--compression {compression!r} is not known; {known}")
    if compression is not None and "raw" not in names:
        raise UserError(
            f"--compression {compression} is of raw images, and --encoding {text} has none; leave "
            "it out, or add raw"
        )
    return [
        Output(
            cast("ImageEncoding", name),
            compression if name == "raw" else None,
        )
        for name in names
    ]


def show_paths(rows: Sequence[PathRow]) -> None:
    """Print a table of the whole path by engine, precision and encoding."""
    numbers = ("images/s", "of engine", "mJ/image", "host mJ", "bytes", *STAGES)
    table = plain_table(
        "engine", "precision", "encoding", "images/s", "of engine", "mJ/image", "known by",
        "host mJ", "bytes", *STAGES, "bottleneck", right=numbers,
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row.engine,
            row.precision,
            " ".join(filter(None, [row.encoding, row.compression])),
            f"{row.images_per_s:,.1f}",
            f"{row.engine_share:.0%}",
            millijoules(row.energy_per_image_j, row.energy_low_j, row.energy_high_j),
            quality_words(row.energy_quality),
            millijoules(row.host_energy_per_image_j, row.host_energy_low_j, row.host_energy_high_j),
            f"{row.bytes_per_image:,.0f}",
            *("-" if row.stage_share is None else f"{row.stage_share[s]:.0%}" for s in STAGES),
            row.bottleneck or "-",
        )
    show_table(table, give_way=("bytes", "known by", "upload", "encode", "device", "precision"))


def millijoules(energy_j: float | None, low_j: float | None, high_j: float | None) -> str:
    """``4.2 (2.1 to 8.4)``; ``-`` for None."""

    def show(joules: float) -> str:
        return f"{1e3 * joules:.3g}"

    if energy_j is None:
        return "-"
    if low_j is None or high_j is None:
        return show(energy_j)
    return f"{show(energy_j)} ({show(low_j)} to {show(high_j)})"
