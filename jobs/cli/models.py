"""Commands about models: list, export."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cluster.errors import UserError
from jobs.cli.options import Json, plain_table, show_json, show_notes, show_table

if TYPE_CHECKING:
    from un0.unwrap import Weights

ModelArgument = Annotated[str, typer.Argument(help="Name from `un0 models`, a file or a folder.")]


def models_command(as_json: Json = False) -> None:
    """List the known models, and which of them are on this machine."""
    from un0.catalog import DEFAULT_MODEL, list_models

    models = list_models()
    if as_json:
        show_json([asdict(model) for model in models])
        return
    table = plain_table(
        "model", "pixels", "classes", "params", "published FID", "file", "where",
        typed=("model",), right=("params", "file"), indent=2,
    )  # fmt: skip
    for model in models:
        table.add_row(
            model.name + (" (default)" if model.name == DEFAULT_MODEL else ""),
            f"{model.image_size}x{model.image_size}",
            str(model.num_classes),
            f"{model.params / 1e6:.1f} M",
            "-" if model.fid is None else f"{model.fid} ({model.fid_evaluator})",
            "-" if model.size_bytes is None else f"{model.size_bytes / 1e6:.1f} MB",
            model.where,
        )
    show_table(table, give_way=("file", "published FID", "params", "classes", "pixels", "where"))
    print("FIDs of different evaluators are not comparable.")


def export_command(
    model: ModelArgument,
    out: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    dtype: Annotated[str, typer.Option(help="Number format of the file: fp32 or fp16.")] = "fp32",
    weights: Annotated[
        str,
        typer.Option(
            help="Weights to take from a checkpoint that has both: ema or model. auto: ema."
        ),
    ] = "auto",
    as_json: Json = False,
) -> None:
    """Write a model to one safetensors file that describes itself, from any readable checkpoint."""
    import torch

    from un0 import from_pretrained, save_model

    dtypes = {"fp32": torch.float32, "fp16": torch.float16}
    if dtype not in dtypes:
        raise UserError(f"--dtype {dtype!r} is not known; choose fp32 or fp16")
    if weights not in ("auto", "ema", "model"):
        raise UserError(f"--weights {weights!r} is not known; choose auto, ema or model")
    loaded = from_pretrained(model, weights=None if weights == "auto" else cast("Weights", weights))
    show_notes(loaded.notes)
    try:
        revision = save_model(loaded, out, dtypes[dtype], loaded.metadata)
    except OSError as error:
        raise UserError(f"cannot write {out}: {error.strerror}; choose another path") from None
    if as_json:
        show_json({"path": str(out), "revision": revision, "dtype": dtype, "notes": loaded.notes})
    else:
        print(f"{out}  sha256 {revision}")
