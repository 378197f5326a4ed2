"""The GPU engine's mathematics on CPU tensors, against the readable model: both sets of steps."""

from __future__ import annotations

from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import un0.engine.fused
from un0 import Un0Model
from un0.engine import torch_ops
from un0.engine.base import Precision, to_uint8
from un0.engine.cuda import best_ops, images_of, request_words
from un0.engine.folding import by_phase, from_phases, sub_pixel
from un0.engine.fused import DECODINGS, Decoding, FusedModel, fits
from un0.engine.fused_decoder import FusedDecoder
from un0.noise import MAX_INDEX, MAX_SEED, initial_phases
from un0.testing import random_model

triton_ops = pytest.importorskip("un0.engine.triton_ops")

CPU = torch.device("cpu")
CONFIGS: list[dict[str, Any]] = [
    {},
    {"parameterization": "mup", "n_cond": 8, "relativization": "mean_relative", "num_blocks": 2},
    {"num_blocks": 3, "num_classes": 1000, "num_steps": 3, "n": 112, "n_cond": 1},
    {"relativization": "absolute", "n": 16, "n_cond": 3, "integration_time": 2.5, "num_blocks": 2},
]


@pytest.fixture(
    params=[
        pytest.param(torch_ops, id="torch"),
        pytest.param(triton_ops, id="triton", marks=pytest.mark.slow),  # its interpreter
    ]
)
def ops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    module: ModuleType = request.param
    if module is triton_ops:
        monkeypatch.setattr(un0.engine.fused, "SAMPLES", 1)
    return module


def inputs(model: Un0Model, rows: int = 2) -> tuple[Tensor, Tensor]:
    c = model.config
    return initial_phases(5, range(rows), c.n + c.n_cond), torch.arange(rows) * 3 % c.num_classes


def readable(model: Un0Model) -> Tensor:
    phases, class_ids = inputs(model)
    images = to_uint8(model.double()(phases.double(), class_ids).permute(0, 2, 3, 1))
    model.float()
    return images.int()


@pytest.mark.parametrize("config", CONFIGS)
def test_within_one_level_of_the_readable_model(ops: Any, config: dict[str, Any]) -> None:
    if ops is triton_ops:  # one enlargement less, for the interpreter's sake
        config = config | {"num_blocks": config.get("num_blocks", 3) - 1}
    model = random_model(**config)
    off = (FusedModel(model, CPU, "fp32", ops).from_phases(*inputs(model)) - readable(model)).abs()
    assert off.max() <= 1
    assert (off > 0).double().mean() < 1e-3


@pytest.mark.parametrize(
    ("precision", "mean", "most"),
    [("fp16", 0.2, 3), ("bf16", 1.0, 12), ("fp8", 4, 60), ("fp8-full", 8, 100)],
)
def test_reduced_precisions_stay_within_their_levels(
    precision: Precision, mean: float, most: int
) -> None:
    """Measured here, mean and most: fp16 0.08 and 1, bf16 0.55 and 5, fp8 2.6 and 32,
    fp8-full 6.1 and 60.

    In PyTorch's operations: Triton's interpreter cuts bf16 off, and rounds some fp8 to half.
    """
    for config in CONFIGS[:3]:
        model = random_model(**config)
        fused = FusedModel(model, CPU, precision)
        off = (fused.from_phases(*inputs(model)).int() - readable(model)).abs()
        assert off.double().mean() < mean
        assert off.max() < most


def test_fp8_leaves_the_drive_and_the_decoder_alone() -> None:
    fused = FusedModel(random_model(), CPU, "fp8")
    kinds = {tensor.dtype for tensor in fused.tensors}
    assert fused.K_NN.dtype == torch.float8_e4m3fn
    assert fused.K_NN.float().abs().max() == 448  # the whole range is used
    assert kinds == {torch.float8_e4m3fn, torch.bfloat16, torch.float32}
    assert fused.drive_CMN.dtype == torch.bfloat16


@pytest.mark.parametrize("config", CONFIGS)
def test_fp8_full_leaves_the_drive_and_the_colours_alone(config: dict[str, Any]) -> None:
    fused = FusedModel(random_model(**config), CPU, "fp8-full")
    assert isinstance(fused.decoder, FusedDecoder)
    assert len(fused.decoder.convs) == 2 * fused.config.num_blocks
    for conv in fused.decoder.convs:
        assert conv.weight_PTNC.dtype == torch.float8_e4m3fn
        largest = conv.weight_PTNC.float().abs().amax((0, 1, 3))
        assert set(largest.tolist()) <= {0, 448}  # the whole range is used; channels of nothing
        assert all(size % 16 == 0 for size in conv.weight_PTNC.shape[2:])
    assert fused.decoder.colours.weight_PTNC.dtype == fused.drive_CMN.dtype == torch.bfloat16


def test_scales_of_maps_are_powers_of_two_with_room_for_other_images() -> None:
    model = random_model()
    fused = FusedModel(model, CPU, "fp8-full")
    decoder = fused.decoder
    assert isinstance(decoder, FusedDecoder)
    for conv, bias in zip(decoder.convs[:-1], list(model.decoder.parameters())[1::2], strict=False):
        scale = (conv.bias_N[: len(bias)] / bias).unique()
        assert len(scale) == 1
        assert torch.frexp(scale).mantissa == 0.5
    largest: list[float] = []

    def watched(*given: Any) -> None:
        torch_ops.convolve(*given)
        largest.append(given[-1].float().abs().max().item())

    decoder._ops = SimpleNamespace(convolve=watched, colours=torch_ops.colours)
    fused.from_phases(*inputs(model, rows=64))
    assert len(largest) == 6
    assert all(16 <= most <= 128 for most in largest[:-1])  # of 448; the last is bf16


def test_a_map_that_grows_beyond_its_scale_saturates() -> None:
    """It stays finite: the image is wrong by its contrast, not by noise."""
    fused = FusedModel(random_model(), CPU, "fp8-full")
    assert isinstance(fused.decoder, FusedDecoder)
    theta = fused._sample(CPU)
    usual = fused.decoder.last_map(fused._features(theta))
    first = fused.decoder.convs[0]
    first.factor_N.mul_(100)
    large = fused.decoder.last_map(fused._features(theta))
    assert large.isfinite().all()
    assert usual.abs().max() < large.abs().max() < 100 * usual.abs().max()


def test_halves_that_grow_beyond_their_scale_saturate() -> None:
    fused = FusedModel(random_model(), CPU, "fp32", decoding="fused")
    assert isinstance(fused.decoder, FusedDecoder)
    fused.decoder.convs[0].factor_N.mul_(1e5)
    last = fused.decoder.last_map(fused._features(fused._sample(CPU)))
    assert last.isfinite().all()


def test_a_decoder_of_zeros_can_be_fp8() -> None:
    model = random_model()
    with torch.no_grad():
        for parameter in model.decoder.parameters():
            parameter.zero_()
    images = FusedModel(model, CPU, "fp8-full").from_phases(*inputs(model))
    assert torch.equal(images, FusedModel(model, CPU, "bf16").from_phases(*inputs(model)))


@pytest.mark.parametrize("gain", [0.0, 1e-4, 1.0, 1e4])
def test_halves_hold_models_of_any_scale(gain: float) -> None:
    """Maps far above and far below what float16 holds, and none at all; K likewise."""
    model = random_model()
    with torch.no_grad():
        weights = list(model.decoder.parameters())
        for parameter in weights[:-2:2]:
            parameter.mul_(gain)
        weights[-2].mul_(1 / gain**6 if gain else 1)  # pictures stay pictures
        model.K.mul_(min(gain, 1))
    fused = FusedModel(model, CPU, "fp32", decoding="fused")
    off = (fused.from_phases(*inputs(model)).int() - readable(model)).abs()
    assert off.max() <= 1
    assert (off > 0).double().mean() < 1e-3


def test_both_sets_of_steps_draw_the_same_in_fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    """To the eye: the interpreter cuts bf16 off and rounds some fp8 to half. It cannot multiply
    bf16 at all, as the convolution to colours does."""
    monkeypatch.setattr(un0.engine.fused, "SAMPLES", 2)
    monkeypatch.setattr(triton_ops, "colours", torch_ops.colours)
    model = random_model(n=112, num_blocks=2, num_steps=3)
    given = inputs(model, rows=2)
    ours, theirs = (
        FusedModel(model, CPU, "fp8-full", ops).from_phases(*given).double()
        for ops in (triton_ops, torch_ops)
    )
    assert torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1] > 0.95


def test_a_model_without_couplings_can_be_fp8() -> None:
    model = random_model()
    with torch.no_grad():
        model.K.zero_()
    images = FusedModel(model, CPU, "fp8").from_phases(*inputs(model))
    off = (images.int() - FusedModel(model, CPU, "bf16").from_phases(*inputs(model)).int()).abs()
    assert off.max() <= 1


@pytest.mark.parametrize("seed", [0, 12345, 2**63, MAX_SEED])
@pytest.mark.parametrize(("n", "m"), [(16, 1), (112, 5), (1040, 8)])
def test_phases_are_the_samplers_bit_for_bit(ops: Any, seed: int, n: int, m: int) -> None:
    indices = [0, 1, 2**31, 2**32 - 1, 2**32, MAX_INDEX]
    word = torch.from_numpy(np.array([seed], dtype=np.uint64).view(np.int64))
    theta, phi = ops.initial_phases(word, torch.tensor(indices), n, m)
    expected = initial_phases(seed, indices, n + m)
    assert torch.equal(theta, torch_ops.pixel_order(expected[:, :n]))
    assert torch.equal(phi, expected[:, n:])


@pytest.mark.parametrize("first", [0, 2**33, MAX_INDEX - 1])
def test_a_request_is_images_of_seed_index_and_class(ops: Any, first: int) -> None:
    """Past the last index there is, rows are padding; they must not fail."""
    model = random_model()
    fused = FusedModel(model, CPU, "fp32", ops, "library")
    class_ids = np.array([7, 3, 1, 0])
    images = images_of(fused, torch.from_numpy(request_words(MAX_SEED, first, class_ids)))
    rows = min(4, MAX_INDEX + 1 - first)
    phases = initial_phases(MAX_SEED, range(first, first + rows), 64 + 2)
    expected = fused.from_phases(phases, torch.from_numpy(class_ids[:rows]))
    assert len(images) == 4
    assert torch.equal(images[:rows], expected)


@pytest.mark.parametrize(("h", "w"), [(1, 1), (4, 4), (5, 3)])
def test_sub_pixels_are_upsample_and_convolution(h: int, w: int) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(6, 4, 3, 3, generator=generator, dtype=torch.float64)
    x = torch.randn(2, 4, h, w, generator=generator, dtype=torch.float64)
    up = torch.nn.functional.interpolate(x, scale_factor=2, mode="nearest")
    expected = torch.nn.functional.conv2d(up, weight, padding=1)
    folded = sub_pixel(weight)
    y = torch.nn.functional.conv_transpose2d(x, folded, stride=2, padding=1)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    assert torch.equal(from_phases(by_phase(folded)), folded)


@pytest.mark.parametrize("decoding", DECODINGS)
def test_every_decoder_gives_the_same_images(ops: Any, decoding: Decoding) -> None:
    model = random_model(n=112, num_blocks=2)
    fused = FusedModel(model, CPU, "fp32", ops, decoding)
    off = (fused.from_phases(*inputs(model)).int() - readable(model)).abs()
    assert off.max() <= 1


@pytest.mark.parametrize("precision", ["fp32", "fp8-full"])
def test_it_outlives_its_model_and_leaves_it_alone(precision: Precision) -> None:
    model = random_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fused = FusedModel(model, CPU, precision, decoding="library")
    images = fused.from_phases(*inputs(model))
    assert all(torch.equal(before[name], t) for name, t in model.state_dict().items())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(fused.from_phases(*inputs(model)), images)


def test_where_triton_does_not_run_pytorch_does(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert best_ops(CPU) is triton_ops  # in the interpreter

    def encode(*_given: Any) -> Tensor:
        raise RuntimeError("Failed to find C compiler")

    monkeypatch.setattr(triton_ops, "encode", encode)
    assert best_ops(CPU) is torch_ops
    assert "Failed to find C compiler" in caplog.text


def test_what_it_does_not_fit_is_left_to_others() -> None:
    config = random_model().config
    assert fits(config)
    for change in ({"solver": "rk4"}, {"encoding": "sin"}, {"n": 72}):
        assert not fits(random_model(**change).config)  # type: ignore[arg-type]
