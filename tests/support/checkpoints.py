"""The checkpoint layouts of others, written from their description."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from un0 import Un0Model, load_model
from un0.errors import ModelFormatError

Tensors = dict[str, Tensor]


def released_tensors(model: Un0Model, infix: str = "") -> Tensors:
    tensors: Tensors = {}
    for name, tensor in model.state_dict().items():
        parts = name.split(".")
        if parts[0] != "decoder":
            row = tensor[None] if name.startswith("omega") else tensor
            tensors[f"dynamics.{infix}{name}"] = row.clone()
        elif parts[1] == "out":
            tensors[f"decoder.{infix}to_output.{parts[2]}"] = tensor.clone()
        else:
            place = {"a": 1, "b": 3}[parts[3]]
            tensors[f"decoder.{infix}cascade.{parts[2]}.net.{place}.{parts[4]}"] = tensor.clone()
    return tensors


def released_config(model: Un0Model) -> dict[str, Any]:
    c = model.config
    return {
        "n_oscillators": c.n,
        "n_conditional_oscillators": c.n_cond,
        "class_dropout_prob": c.class_dropout_prob,
        "num_steps": c.num_steps,
        "decoder_in_channels": None,
        "parameterization": c.parameterization,
        "relativization": c.relativization,
        "encoding": c.encoding,
        "solver": c.solver,
        "epochs": 1200,
        "optimizer": {"name": "adamw", "betas": [0.9, 0.95]},
    }


def write_released(
    path: Path, model: Un0Model, config: Mapping[str, Any] | None = None, infix: str = ""
) -> Path:
    stated = released_config(model) if config is None else dict(config)
    torch.save({"model": released_tensors(model, infix), "config": stated}, path)
    return path


def community(model: Un0Model) -> tuple[Tensors, dict[str, str]]:
    c, state = model.config, model.state_dict()
    tensors: Tensors = {}
    for name, tensor in state.items():
        short = name.replace("decoder.blocks.", "dec.").replace("decoder.out.", "out.")
        tensors[short] = tensor.clone()
    mup = c.parameterization == "mup"
    for name, size in (("K", c.n), ("K_cond", c.n_cond)):
        tensors[name].fill_diagonal_(0).mul_(size**-0.5 if mup else 1)
    tensors["K_drive"].mul_(c.n_cond**-0.5 if mup else 1)
    metadata = {
        "n": c.n,
        "n_cond": c.n_cond,
        "num_steps": c.num_steps,
        "integration_time": c.integration_time,
        "num_blocks": c.num_blocks,
        "num_classes": c.num_classes,
        "decoder_in_channels": c.channels[0],
        "solver": c.solver,
        "relativization": c.relativization,
    }
    return tensors, {key: str(value) for key, value in metadata.items()}


def same_weights(a: Un0Model, b: Un0Model) -> bool:
    """Whether two models hold the same tensors, bit for bit."""
    mine, theirs = a.state_dict(), b.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


def save_content(path: Path, **content: Any) -> Path:
    """A ``.pt`` file of these entries."""
    torch.save(content, path)
    return path


def refusal(path: Path) -> str:
    """What loading is refused with: one line that names the path."""
    with pytest.raises(ModelFormatError) as caught:
        load_model(path)
    said = str(caught.value)
    assert str(path) in said
    assert "\n" not in said
    return said
