"""Initialisation of a model to be trained: at this scale it decides whether training works."""

from __future__ import annotations

import torch
from torch import nn

from un0.config import ModelConfig
from un0.model import Un0Model
from un0.train.recipe import InitRecipe


def new_model(
    config: ModelConfig, labels: tuple[str, ...], init: InitRecipe, seed: int, gray: bool
) -> Un0Model:
    """An untrained model, the same for the same seed.

    The drive is strong against a unit time interval, so that each class pins its own part of the
    oscillators and leaves the rest to the noise; natural frequencies are small, and the driver
    starts with none. ``gray``: the three output channels start equal, and as equal gradients reach
    them they stay equal.
    """
    g = torch.Generator().manual_seed(seed)
    model = Un0Model(config, labels)
    scale = 1.0 if config.parameterization == "mup" else config.n**-0.5
    with torch.no_grad():
        model.K.normal_(0, init.coupling * scale, generator=g)
        model.omega.normal_(0, init.omega, generator=g)
        model.K_drive.normal_(0, init.drive, generator=g)
        if config.relativization == "ref_oscillator":
            _lock_reference(model, init.reference_drive)
        for layer in model.decoder.modules():
            if isinstance(layer, nn.Conv2d):
                _init_conv(layer, g)
        if gray:
            model.decoder.out.weight[1:] = model.decoder.out.weight[:1].clone()
    return model


def _lock_reference(model: Un0Model, strength: float) -> None:
    """Make oscillator 0, which all phases are read against, a copy of the driver's phase.

    Alone under the driver its offset obeys d <- d - a sin(d) per Euler step, a = strength * dt.
    From nearly opposite (d = pi - e) the offset e grows by 1 + a a step, and near zero it shrinks
    by |1 - a|: a = 1.4 brings all but about one start in 10,000 home in ten steps, where a = 0.5
    leaves one in 50 stranded, each a shattered picture. It must not feel its neighbours.
    """
    model.omega[0] = 0
    model.K[0] = 0
    model.K_drive[:, 0] = strength / model.config.n_cond


def _init_conv(layer: nn.Conv2d, g: torch.Generator) -> None:
    """He's normal initialisation for LeakyReLU 0.2, zero biases."""
    nn.init.kaiming_normal_(layer.weight, a=0.2, nonlinearity="leaky_relu", generator=g)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
