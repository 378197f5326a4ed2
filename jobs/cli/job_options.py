"""The options that say what a job is: of ``generate``, ``submit`` and ``quote``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cluster.errors import UserError

if TYPE_CHECKING:
    from jobs.spec import JobSpec

Model = Annotated[
    str | None, typer.Argument(help="Name from `un0 models`, or a file. Default: bundled.")
]
Count = Annotated[
    str | None, typer.Option(metavar="N", help="Images to generate: 1000, 1e6, 250k, 1.5M.")
]
Inputs = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Rows, an image each: Parquet, CSV or JSONL; a path, s3://… or store:KEY.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse the job if a row of --inputs is bad.")
]
Classes = Annotated[
    str | None, typer.Option(help="Ids or names, comma-separated, dealt out in turn.")
]
Seed = Annotated[str | None, typer.Option(metavar="N", help="0 to 2**64-1. Default 0.")]
JobId = Annotated[str | None, typer.Option(help="Name of the job in the store.")]
Precision = Annotated[
    str | None,
    typer.Option(help="fp32, bf16, fp16, int8, fp8 (couplings) or fp8-full (decoder too)."),
]
Encoding = Annotated[str | None, typer.Option(help="png, webp, jpeg or raw.")]
Compression = Annotated[
    str | None, typer.Option(help="Of raw images: zstd (default), lz4 or none.")
]
ShardImages = Annotated[str | None, typer.Option(metavar="N", help="Images per commit.")]
Deadline = Annotated[
    str | None,
    typer.Option(help="From submission: 90s, 15m, 2h30m; or a time: 2026-12-01T00:00Z."),
]
OnDeadline = Annotated[
    str | None,
    typer.Option(help="When it passes: continue (default), or stop and keep what there is."),
]
Priority = Annotated[
    str | None,
    typer.Option(metavar="N", help="-100 to 100; higher goes first. Default 0."),
]
Objective = Annotated[
    str | None,
    typer.Option(help="energy (default), deadline, throughput, cost or carbon."),
]
EnergyBudget = Annotated[
    str | None, typer.Option(help="The job pauses before it takes more: 500 J, 2 kJ, 1.5 kWh.")
]
Owner = Annotated[str | None, typer.Option(help="Whom to report the energy to.")]
Label = Annotated[list[str] | None, typer.Option(help="KEY=VALUE, repeatable.")]
Spec = Annotated[
    Path | None,
    typer.Option(help="YAML or JSON file, or '-' for standard input; flags override."),
]


def read_job(spec: Path | None, label: list[str] | None, **flags: Any) -> JobSpec:
    """The job of a file and flags, which override it. flags: by the fields of ``JobSpec``; None is
    not given. Raises UserError naming what is wrong."""
    from jobs.spec import load_spec, parse_spec

    flags["labels"] = split_labels(label)
    inputs, strict = flags.pop("inputs", None), flags.pop("strict", False)
    data = load_spec(spec) if spec else {}
    data |= {name: value for name, value in flags.items() if value is not None}
    data |= _inputs_of(data.get("inputs"), inputs, strict=strict)
    if "count" not in data and data.get("inputs") is None:
        raise UserError(
            "how many images? give --count N, or --inputs FILE, or a --spec file with one of these"
        )
    return parse_spec(data, f"job spec {spec}" if spec else "job")


def _inputs_of(of_file: Any, source: str | None, *, strict: bool) -> dict[str, Any]:
    """What the flags say of ``inputs``, over what the file says. Raises UserError."""
    if source is None and not strict:
        return {}
    if source is None and of_file is None:
        raise UserError("--strict is about the rows of --inputs; give these, or leave it out")
    changes: dict[str, Any] = {} if source is None else {"source": source}
    if strict:
        changes["strict"] = True
    known = {"source": of_file} if isinstance(of_file, str) else of_file
    if not isinstance(known, dict):
        return {"inputs": changes if known is None else known}
    return {"inputs": known | changes}


def split_labels(pairs: list[str] | None) -> dict[str, str] | None:
    """The labels of ``KEY=VALUE`` flags; None of none. Raises UserError."""
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
