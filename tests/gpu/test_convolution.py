"""The fp8 decoder's kernel on a GPU against its twin there: what the interpreter cannot tell."""

from __future__ import annotations

import pytest
import torch
from support.gpu import needs
from torch import Tensor

from un0.engine import torch_ops
from un0.engine.base import exact_cuda
from un0.engine.fused_decoder import FP8

triton_ops = pytest.importorskip("un0.engine.triton_ops")

# Rows, side, channels before and after: of the smallest and the largest released models, and odd.
SHAPES = [(9, 16, 32, 32), (70, 4, 128, 64), (3, 4, 2048, 1024), (5, 8, 832, 416), (2, 7, 112, 64)]


@pytest.fixture(autouse=True)
def _exact() -> None:
    needs("fp8-full")
    exact_cuda()


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).cuda()


def operands(rows: int, side: int, c: int, n: int, enlarges: bool) -> tuple[Tensor, ...]:
    """A map and a convolution whose results have a deviation of some 40."""
    taps = (4, 4) if enlarges else (1, 9)
    x, weight = draw(rows, side, side, c, seed=0) * 20, draw(*taps, n, c, seed=1) * 100
    factor = 40 / (2000 * (taps[1] * c) ** 0.5) * (1 + draw(n, seed=2).abs() / 10)
    return x.to(FP8), weight.to(FP8), factor, draw(n, seed=3) * 10


@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_float32(shape: tuple[int, int, int, int], enlarges: bool) -> None:
    """Tensor cores drop bits of long fp8 sums; what is left must be far below e4m3's own 3.7 %."""
    given = operands(*shape, enlarges)
    ours = triton_ops.convolve(*given, torch.float32)
    expected = torch_ops.convolve(*given, torch.float32)
    assert (ours - expected).square().mean().sqrt() < 1e-3 * expected.square().mean().sqrt()


@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_maps_are_rounded_as_the_twin_does(
    shape: tuple[int, int, int, int], enlarges: bool
) -> None:
    """Near ties a number may go to its neighbour; beyond the range it saturates."""
    x, weight, factor, bias = operands(*shape, enlarges)
    given = (x, weight, factor * 4, bias)
    ours, expected = (ops.convolve(*given, FP8).float() for ops in (triton_ops, torch_ops))
    assert expected.max() == 448
    off = (ours - expected).abs()
    assert (off <= (expected.abs() / 8).clamp(min=2**-4)).all()
    assert (off > 0).float().mean() < 0.05


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    x, *conv = operands(300, 8, 208, 104 + 8, enlarges=True)
    whole = triton_ops.convolve(x, *conv, FP8).float()
    for rows in (slice(0, 1), slice(37, 38), slice(100, 200)):
        assert torch.equal(triton_ops.convolve(x[rows], *conv, FP8).float(), whole[rows])


def test_maps_of_more_than_two_billion_numbers() -> None:
    rows, side, n = 8193, 128, 16  # the last row is beyond 2**31
    if torch.cuda.mem_get_info()[0] < 6 * 10**9:
        pytest.skip("needs 6 GB")
    x, *conv = operands(1, side, 16, n, enlarges=False)
    many = x.view(torch.uint8).expand(rows, -1, -1, -1).contiguous().view(FP8)
    made = triton_ops.convolve(many, *conv, FP8)
    assert torch.equal(made[-1].float(), made[0].float())
