"""Every engine against the readable model, over the whole space of configurations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import un0.engine.gemm
from un0 import Un0Model
from un0.engine import ENGINES, build_engine, default_tile
from un0.engine.base import to_uint8
from un0.engine.eager import EagerEngine
from un0.noise import initial_phases
from un0.testing import random_model

CONFIGS: list[dict[str, Any]] = [
    {},
    {"solver": "rk4", "num_steps": 4},
    {"solver": "rk4", "num_steps": 3, "parameterization": "mup", "n_cond": 4},
    {"parameterization": "mup", "n_cond": 8, "relativization": "mean_relative"},
    {"relativization": "absolute", "encoding": "sin"},
    {"relativization": "mean_relative", "encoding": "raw", "integration_time": 2.5},
    {"num_blocks": 4, "n_cond": 1, "num_classes": 1000, "num_steps": 1},
]


def inputs(model: Un0Model, rows: int = 11) -> tuple[Tensor, Tensor]:
    c = model.config
    return initial_phases(5, range(rows), c.n + c.n_cond), torch.arange(rows) * 3 % c.num_classes


@pytest.mark.parametrize("kind", [kind.name for kind in ENGINES if kind.name != "cuda"])
@pytest.mark.parametrize("config", CONFIGS)
def test_within_one_level_of_the_readable_model(kind: str, config: dict[str, Any]) -> None:
    model = random_model(**config)
    phases, class_ids = inputs(model)
    images = build_engine(model, "cpu", "fp32", tile=16, name=kind)(phases, class_ids)
    readable = model.double()(phases.double(), class_ids).permute(0, 2, 3, 1)
    assert images.shape == readable.shape
    assert images.dtype == torch.uint8
    off = (images.int() - to_uint8(readable).int()).abs()
    assert off.max() <= 1
    assert (off > 0).double().mean() < 1e-3


@pytest.mark.parametrize("config", CONFIGS)
def test_float_images_of_the_prepared_engine(config: dict[str, Any]) -> None:
    model = random_model(**config)
    phases, class_ids = inputs(model)
    engine = EagerEngine(model, torch.device("cpu"), "fp32", tile=16)
    images = engine.decode(engine.integrate(phases, class_ids))
    readable = model.double()(phases.double(), class_ids).permute(0, 2, 3, 1)
    torch.testing.assert_close(images.double(), readable, rtol=0, atol=5e-5)


def test_machines_without_the_packed_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyTorch has no oneDNN the plain product gives the same images."""
    model = random_model()
    phases, class_ids = inputs(model)
    packed = build_engine(model, "cpu", tile=16)(phases, class_ids)
    monkeypatch.setattr(un0.engine.gemm, "has_packed_linear", lambda _: False)
    plain = build_engine(model, "cpu", tile=16)(phases, class_ids)
    off = np.abs(packed.numpy().astype(int) - plain.numpy())
    assert off.max() <= 1
    assert (off > 0).mean() < 1e-3


def test_an_engine_outlives_its_model_and_leaves_it_alone() -> None:
    model = random_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    phases, class_ids = inputs(model)
    engine = build_engine(model, "cpu", tile=16)
    images = engine(phases, class_ids)
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(engine(phases, class_ids), images)


def test_bf16_is_close_in_levels() -> None:
    """Measured over 32 images: mean 0.44 and at most 6 levels off."""
    model = random_model(n=512, n_cond=1)
    phases, class_ids = inputs(model, rows=16)
    full = build_engine(model, "cpu", "fp32", tile=16)(phases, class_ids).int()
    off = (build_engine(model, "cpu", "bf16", tile=16)(phases, class_ids).int() - full).abs()
    assert off.double().mean() < 1
    assert off.max() < 16


def test_levels_round_and_clamp() -> None:
    images = torch.tensor([-1.5, -1.0, -0.99, 0.0, 0.5 / 127.5, 1.0, 1.5])
    assert to_uint8(images).tolist() == [0, 0, 1, 128, 128, 255, 255]


def test_default_tile_is_the_same_for_the_same_kind_of_machine() -> None:
    small, large = random_model().config, random_model(n=4096, num_classes=1).config
    assert default_tile(small, torch.device("cpu")) <= default_tile(large, torch.device("cpu"))
    assert default_tile(small, torch.device("cpu")) % 8 == 0  # whole blocks of every kernel
