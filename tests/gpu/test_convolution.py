"""The fused decoder's kernels on a GPU against their twins there: what no interpreter can tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.gpu import needs
from un0.engine import torch_ops
from un0.engine.base import exact_cuda
from un0.engine.folding import by_block
from un0.engine.precisions import FP8, decoder_numbers, joined

triton_ops = pytest.importorskip("un0.engine.triton_ops")

# Rows, side, channels before and after: of the smallest and the largest released models, and odd.
SHAPES = [
    (9, 16, 32, 32), (70, 4, 128, 64), (3, 4, 2048, 1024), (5, 8, 832, 416), (2, 32, 128, 128),
    (2, 7, 112, 64),
]  # fmt: skip
DEVIATION = 40.0  # of what the operands below make


@pytest.fixture(autouse=True)
def _exact() -> None:
    exact_cuda()


@pytest.fixture(params=["boxes", "pixels"])
def _kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels one by one are what GPUs without boxes take."""
    if request.param == "pixels":
        monkeypatch.setattr(triton_ops, "has_boxes", lambda _device: False)
    elif not triton_ops.has_boxes(torch.device("cuda")):
        pytest.skip("this GPU, or its Triton, has no boxes")


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


def made(ops: Any, given: tuple[Tensor, ...], kind: torch.dtype, parts: int = 1) -> Tensor:
    """The new map, in a buffer full of something else."""
    x, weight, factor, _ = given
    grow = 2 if len(weight) == 4 else 1
    shape = (len(x), x.shape[1] * grow, x.shape[2] * grow, len(factor) * parts)
    out = torch.full(shape, 77.0, device="cuda").to(kind)
    ops.convolve(*given, out)
    return out


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize(("kind", "most"), [(FP8, 5e-3), (torch.bfloat16, 1e-4)])
@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_sums_are_those_of_float32(
    shape: tuple[int, int, int, int], enlarges: bool, kind: torch.dtype, most: float
) -> None:
    """Tensor cores drop bits of long fp8 sums; what is lost must be far below e4m3's own 3.7 %."""
    needs("fp8-full" if kind == FP8 else "bf16")
    given = operands(*shape, enlarges, kind)
    ours, expected = (made(ops, given, torch.float32) for ops in (triton_ops, torch_ops))
    assert (ours - expected).square().mean().sqrt() < most * expected.square().mean().sqrt()


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_maps_are_rounded_as_the_twin_does(
    shape: tuple[int, int, int, int], enlarges: bool
) -> None:
    """Near ties a number may go to its neighbour; beyond the range it saturates."""
    needs("fp8-full")
    x, weight, factor, bias = operands(*shape, enlarges, FP8)
    given = (x, weight, factor * 4, bias)
    ours, expected = (made(ops, given, FP8).float() for ops in (triton_ops, torch_ops))
    assert expected.max() == 448
    off = (ours - expected).abs()
    assert (off <= expected.abs() / 8 + 4 * DEVIATION / 40).all()  # small ones: the sum's own error
    assert (off > 0).float().mean() < 0.1


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    needs("fp8-full")
    for c in (112, 208):  # pixel by pixel, and in boxes
        x, *conv = operands(300, 8, c, 104 + 8, True, FP8)
        whole = made(triton_ops, (x, *conv), FP8).float()
        for rows in (slice(0, 1), slice(37, 38), slice(100, 200)):
            assert torch.equal(made(triton_ops, (x[rows], *conv), FP8).float(), whole[rows])


@pytest.mark.usefixtures("_kernel")
@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize(
    ("rows", "side", "c", "n"), [(9, 16, 32, 32), (3, 4, 2048, 1024), (5, 8, 416, 224)]
)
def test_halves_are_as_good_as_float32(
    rows: int, side: int, c: int, n: int, enlarges: bool
) -> None:
    x, weight, *rest = operands(rows, side, c, n, enlarges, torch.float32)
    numbers = decoder_numbers("fp32")
    given = (numbers.keep_map(x), numbers.keep_weight(weight), *rest)
    exact = made(torch_ops, (x, weight, *rest), torch.float32)
    for kind, parts in ((torch.float32, 1), (torch.float16, 2)):
        ours = made(triton_ops, given, kind, parts)
        off = (ours if parts == 1 else joined(ours, 2)) - exact
        assert off.square().mean().sqrt() < 3e-5 * exact.square().mean().sqrt()


@pytest.mark.parametrize(("rows", "side", "c"), [(5, 32, 32), (3, 64, 128), (17, 8, 64)])
def test_colours(rows: int, side: int, c: int) -> None:
    factor, bias = draw(3, seed=3).abs() / (9 * c) ** 0.5, draw(3, seed=1) / 5
    for numbers in (decoder_numbers("bf16"), decoder_numbers("fp32")):
        x = numbers.keep_map(draw(rows, side, side, c, seed=0))
        conv = numbers.keep_weight(by_block(draw(3, c, 3, 3, seed=2))), factor, bias
        ours, expected = (ops.colours(x, *conv).int() for ops in (triton_ops, torch_ops))
        off = (ours - expected).abs()
        assert expected.float().std() > 20
        assert off.max() <= 1
        assert (off > 0).float().mean() < 1e-3
        assert torch.equal(triton_ops.colours(x[1:2], *conv).int(), ours[1:2])


@pytest.mark.parametrize("c", [16, 64])
def test_maps_of_more_than_two_billion_numbers(c: int) -> None:
    """Read, and written: the last row is beyond 2**31."""
    kind, rows, side, n = torch.bfloat16, 2**31 // (128**2 * c) + 1, 128, 16
    if torch.cuda.mem_get_info()[0] < 12 * 10**9:
        pytest.skip("needs 12 GB")
    x, *conv = operands(1, side, c, n, False, kind)
    many = x.expand(rows, -1, -1, -1).contiguous()
    maps = made(triton_ops, (many, *conv), kind)
    assert torch.equal(maps[-1], maps[0])
    del maps
    weight = by_block(draw(3, c, 3, 3, seed=2)).bfloat16()
    levels = triton_ops.colours(many, weight, draw(3, seed=3), draw(3, seed=4))
    assert torch.equal(levels[-1], levels[0])
