"""The fused decoder's kernels on a GPU against their twins there: what no interpreter can tell."""

from __future__ import annotations

import pytest
import torch
from support.gpu import needs
from torch import Tensor

from un0.engine import torch_ops
from un0.engine.base import exact_cuda
from un0.engine.folding import by_block
from un0.engine.fused_decoder import FP8

triton_ops = pytest.importorskip("un0.engine.triton_ops")

# Rows, side, channels before and after: of the smallest and the largest released models, and odd.
SHAPES = [
    (9, 16, 32, 32), (70, 4, 128, 64), (3, 4, 2048, 1024), (5, 8, 832, 416), (2, 32, 128, 128),
    (2, 7, 112, 64),
]  # fmt: skip
DEVIATION = 40.0  # of what the operands below make


@pytest.fixture(autouse=True)
def _exact() -> None:
    needs("fp8-full")
    exact_cuda()


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).cuda()


def operands(
    rows: int, side: int, c: int, n: int, enlarges: bool, kind: torch.dtype
) -> tuple[Tensor, ...]:
    """A map and a convolution, all within fp8's range."""
    taps = (4, 4) if enlarges else (1, 9)
    x, weight = draw(rows, side, side, c, seed=0) * 20, draw(*taps, n, c, seed=1) * 80
    factor = DEVIATION / (1600 * (taps[1] * c) ** 0.5) * (1 + draw(n, seed=2).abs() / 10)
    x, weight = (t.clamp(-448, 448).to(kind) for t in (x, weight))
    return x, weight, factor, draw(n, seed=3) * 10


@pytest.mark.parametrize(("kind", "most"), [(FP8, 5e-3), (torch.bfloat16, 1e-5)])
@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_float32(
    shape: tuple[int, int, int, int], enlarges: bool, kind: torch.dtype, most: float
) -> None:
    """Tensor cores drop bits of long fp8 sums; what is lost must be far below e4m3's own 3.7 %."""
    given = operands(*shape, enlarges, kind)
    ours = triton_ops.convolve(*given, torch.float32)
    expected = torch_ops.convolve(*given, torch.float32)
    assert (ours - expected).square().mean().sqrt() < most * expected.square().mean().sqrt()


@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_maps_are_rounded_as_the_twin_does(
    shape: tuple[int, int, int, int], enlarges: bool
) -> None:
    """Near ties a number may go to its neighbour; beyond the range it saturates."""
    x, weight, factor, bias = operands(*shape, enlarges, FP8)
    given = (x, weight, factor * 4, bias)
    ours, expected = (ops.convolve(*given, FP8).float() for ops in (triton_ops, torch_ops))
    assert expected.max() == 448
    off = (ours - expected).abs()
    assert (off <= expected.abs() / 8 + 4 * DEVIATION / 40).all()  # small ones: the sum's own error
    assert (off > 0).float().mean() < 0.1


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    for c in (112, 208):  # pixel by pixel, and in boxes
        x, *conv = operands(300, 8, c, 104 + 8, True, FP8)
        whole = triton_ops.convolve(x, *conv, FP8).float()
        for rows in (slice(0, 1), slice(37, 38), slice(100, 200)):
            assert torch.equal(triton_ops.convolve(x[rows], *conv, FP8).float(), whole[rows])


@pytest.mark.parametrize(("rows", "side", "c"), [(5, 32, 32), (3, 64, 128), (17, 8, 64)])
def test_colours(rows: int, side: int, c: int) -> None:
    x, bias = draw(rows, side, side, c, seed=0).bfloat16(), draw(3, seed=1) / 5
    weight = by_block(draw(3, c, 3, 3, seed=2) / (9 * c) ** 0.5).bfloat16()
    ours, expected = (ops.colours(x, weight, bias).int() for ops in (triton_ops, torch_ops))
    off = (ours - expected).abs()
    assert expected.float().std() > 50
    assert off.max() <= 1
    assert (off > 0).float().mean() < 1e-3
    assert torch.equal(triton_ops.colours(x[1:2], weight, bias).int(), ours[1:2])


@pytest.mark.parametrize("c", [16, 64])
def test_maps_of_more_than_two_billion_numbers(c: int) -> None:
    """Read, and written: the last row is beyond 2**31."""
    kind, rows, side, n = torch.bfloat16, 2**31 // (128**2 * c) + 1, 128, 16
    if torch.cuda.mem_get_info()[0] < 12 * 10**9:
        pytest.skip("needs 12 GB")
    x, *conv = operands(1, side, c, n, False, kind)
    many = x.expand(rows, -1, -1, -1).contiguous()
    made = triton_ops.convolve(many, *conv, kind)
    assert torch.equal(made[-1], made[0])
    del made
    weight = by_block(draw(3, c, 3, 3, seed=2)).bfloat16()
    levels = triton_ops.colours(many, weight, torch.zeros(3, device="cuda"))
    assert torch.equal(levels[-1], levels[0])
