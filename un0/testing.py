"""A model with random weights, for tests and benchmarks that need a shape and not a picture."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from un0.config import ModelConfig
from un0.model import Un0Model

SMALL = ModelConfig(
    n=64,
    n_cond=2,
    num_classes=10,
    num_blocks=3,
    num_steps=10,
    solver="euler",
    parameterization="standard",
    relativization="ref_oscillator",
    encoding="sin_cos",
)


def random_model(seed: int = 0, labels: tuple[str, ...] = (), **changes: Any) -> Un0Model:
    """``SMALL`` with ``changes`` to its config, its weights drawn from ``seed``, in eval mode.

    Couplings are strong enough to move the phases and diagonals are not zero, as in trained
    models; the decoder keeps its input's scale, so that images span the range of tanh.
    """
    config = dataclasses.replace(SMALL, **changes)
    generator = torch.Generator().manual_seed(seed)
    model = Un0Model(config, labels)
    standard = config.parameterization == "standard"
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if name.startswith("decoder."):
                fan_in = tensor[0].numel() if tensor.dim() > 1 else 100
                scale = (2.0 / fan_in) ** 0.5
            elif tensor.dim() == 1:
                scale = 1.0
            else:
                scale = 2.0 * tensor.shape[-1] ** -0.5 if standard else 2.0
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * scale)
    return model.eval().requires_grad_(False)
