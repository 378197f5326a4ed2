"""Triton's kernels: each against its twin in PyTorch's operations, and compiled for a real GPU.

The kernels run in Triton's interpreter here; that they also compile for a GPU is asked of Triton's
compiler, which needs none.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.effort import costly
from un0.engine import torch_ops
from un0.engine.base import to_uint8
from un0.engine.folding import by_block
from un0.engine.precisions import FP8, Numbers, joined

triton_ops = pytest.importorskip("un0.engine.triton_ops")


PLAIN = Numbers(torch.float32)
HALVES = Numbers(torch.float16, split=True)


def draw(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize(("scale", "most"), [(3.0, 2e-7), (1e4, 2e-6)])
def test_sines_of_any_phase(scale: float, most: float) -> None:
    theta = draw(3, 2000, scale=scale)
    swings = triton_ops.encode(theta, PLAIN)
    exact = torch.stack([theta.double().sin(), theta.double().cos()], dim=1)
    assert (swings - exact).abs().max() < most


@pytest.mark.parametrize("m", costly(1, 65, 2, 3, 8))
def test_conditioning(m: int) -> None:
    given = (draw(5, m), draw(m, seed=1), draw(m, m, seed=2), 6)
    assert triton_ops.conditioning_waves(*given).shape == (6, 5, 2, m)
    torch.testing.assert_close(
        triton_ops.conditioning_waves(*given), torch_ops.conditioning_waves(*given),
        rtol=0, atol=3e-4,  # what rounding grows to in six strong steps
    )  # fmt: skip


@pytest.mark.parametrize("n", costly(16, 1040, 2048))
def test_one_step(n: int) -> None:
    """Rows of one class and of several, a block and more, whole blocks and not."""
    m, rows = 3, 4
    theta, pull, omega = draw(rows, n), draw(rows, 2, n, seed=1), draw(n, seed=2)
    drive, wave = draw(6, m, n, seed=3), draw(rows, 2, m, seed=4)
    class_ids = torch.tensor([5, 0, 0, 2])
    for numbers, parts in ((PLAIN, 1), (HALVES, 3)):
        given = (theta, pull, 0.5, omega, drive, class_ids, wave, numbers)
        ours, theirs = triton_ops.advance(*given), torch_ops.advance(*given)
        torch.testing.assert_close(ours[0], theirs[0], rtol=0, atol=2e-5)
        assert ours[1].shape == (rows, 2, parts * n)
        ours, theirs = (swings.float().unflatten(2, (parts, n)) for swings in (ours[1], theirs[1]))
        if numbers is HALVES:
            assert torch.equal(ours[:, :, 0], ours[:, :, 2])
            ours, theirs = ours[:, :, 1:].sum(2), theirs[:, :, 1:].sum(2)
            assert (ours.square().sum(1) - 1).abs().max() < 1e-5  # both halves are there
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("numbers", [PLAIN, dataclasses.replace(HALVES, channels=32)])
def test_read_out_is_nhwc(numbers: Numbers) -> None:
    theta, reference = draw(3, 112), draw(3, seed=1)
    ours = triton_ops.read_out(theta, reference, numbers)
    expected = torch_ops.read_out(theta, reference, numbers)
    assert ours.shape == expected.shape == (3, 4, 4, numbers.width(14))
    if numbers.split:
        ours, expected = joined(ours, 2), joined(expected, 2)
    torch.testing.assert_close(ours, expected, rtol=0, atol=2e-6)


def test_bias_and_leak_of_a_map_in_either_layout() -> None:
    x, bias = draw(2, 6, 20, 10), draw(6, seed=1)
    expected = torch.nn.functional.leaky_relu(x + bias[:, None, None], 0.2)
    for layout in (torch.contiguous_format, torch.channels_last):
        for ops in (torch_ops, triton_ops):
            y = ops.bias_and_leak(x.clone(memory_format=layout), bias)
            torch.testing.assert_close(y, expected)


def test_every_level_is_reached_and_rounded_alike() -> None:
    x = torch.linspace(-12, 12, 3 * 40 * 40 * 2).view(2, 3, 40, 40)
    x[0, :, 0, 0], x[1, :, 0, 0] = -200, 200
    bias = torch.tensor([0.0, 0.001, -0.001])
    ours, theirs = triton_ops.levels(x, bias), torch_ops.levels(x, bias)
    assert ours.shape == (2, 40, 40, 3)
    assert ours.unique().tolist() == list(range(256))
    off = (ours.int() - theirs.int()).abs()
    assert off.max() <= 1
    assert (off > 0).double().mean() < 2e-3


def whole(*shape: int, most: int = 2, seed: int = 0) -> Tensor:
    """Whole numbers, which fp8 holds and float32 adds up without rounding."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-most, most + 1, shape, generator=generator).float()


def operands(
    rows: int, h: int, w: int, c: int, n: int, enlarges: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A map, and a convolution's weight, factors (powers of two) and biases."""
    weight_PTNC = whole(*((4, 4) if enlarges else (1, 9)), n, c, most=4, seed=1).to(FP8)
    factor_N = 2.0 ** (whole(n, seed=2) - 4)
    return whole(rows, h, w, c, most=8).to(FP8), weight_PTNC, factor_N, whole(n, seed=3)


@pytest.mark.parametrize("kind", [FP8, torch.float32])
@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize(
    ("rows", "h", "w", "c", "n"),
    costly(
        (2, 5, 3, 80, 144),  # slices and blocks of channels that are not whole
        (9, 4, 4, 144, 48),  # boxes of images, the last not full
        (3, 1, 1, 16, 16),  # every pixel is a corner
        (5, 4, 8, 32, 32),  # more pixels than a block has
        (1, 4, 4, 208, 64),
        (1, 8, 32, 128, 32),  # boxes of rows
        (2, 2, 256, 128, 48),  # boxes of one row
        fast=1,
    ),
)
def test_convolution(
    rows: int, h: int, w: int, c: int, n: int, enlarges: bool, kind: torch.dtype
) -> None:
    x, weight, *rest = operands(rows, h, w, c, n, enlarges)
    x, conv = x.to(kind), (weight.to(kind), *rest)
    ours = made(triton_ops, x, *conv, kind=torch.float32)
    assert ours.shape == (rows, h << enlarges, w << enlarges, n)
    assert torch.equal(ours, made(torch_ops, x, *conv, kind=torch.float32))
    for row in {0, rows - 1}:  # an image is the same without its neighbours
        alone = made(triton_ops, x[row : row + 1], *conv, kind=torch.float32)
        assert torch.equal(alone[0], ours[row])


@pytest.mark.parametrize("enlarges", [False, True])
@pytest.mark.parametrize(
    ("rows", "h", "w", "c", "n"), costly((2, 7, 5, 32, 32), (9, 4, 4, 96, 32), fast=1)
)
def test_convolution_of_halves(rows: int, h: int, w: int, c: int, n: int, enlarges: bool) -> None:
    """One part of c channels after the other, pixel by pixel and in boxes: the whole numbers'."""
    x, weight = draw(rows, h, w, c), draw(*((4, 4) if enlarges else (1, 9)), n, c, seed=1)
    rest = (draw(n, seed=2), draw(n, seed=3))
    numbers = Numbers(torch.float16, split=True, channels=32)
    given = (numbers.keep_map(x), numbers.keep_weight(weight), *rest)
    exact = made(torch_ops, x.double(), weight.double(), *rest, kind=torch.float64)
    largest = exact.abs().max()
    for ops in (torch_ops, triton_ops):
        for kind in (torch.float32, torch.float16):
            y = made(ops, *given, kind=kind)
            if kind == torch.float16:
                assert y.shape[-1] == 2 * n
                y = joined(y, 2)
            assert (y - exact).abs().max() < 2e-6 * largest
    large = (*given[:2], rest[0] * 2**20, rest[1])
    for ops in (torch_ops, triton_ops):
        y = made(ops, *large, kind=torch.float16)
        assert y.isfinite().all()
        assert y.max() == 65504
    rounded = made(torch_ops, x.half(), weight.half(), *rest, kind=torch.float32)
    assert (rounded - exact).abs().max() > 1e-4 * largest


def made(
    ops: Any, x: Tensor, weight: Tensor, factor: Tensor, bias: Tensor, *, kind: torch.dtype = FP8
) -> Tensor:
    """The new map, in a buffer full of something else."""
    (b, h, w, _), grow = x.shape, 2 if len(weight) == 4 else 1
    parts = 2 if kind == torch.float16 and torch_ops.is_split(x, weight) else 1
    out = torch.full((b, h * grow, w * grow, len(bias) * parts), 77.0).to(kind)
    ops.convolve(x, weight, factor, bias, out)
    return out


def test_a_map_in_fp8_saturates_and_rounds_to_nearest() -> None:
    """The interpreter takes ties another way and drops a carry into the exponent, which halves."""
    x, weight, factor, bias = operands(1, 8, 8, 32, 32, enlarges=False)
    given = (x, weight, factor * 16, bias)
    exact = made(torch_ops, *given, kind=torch.float32)
    expected = made(torch_ops, *given).float()
    assert exact.max() > 600
    assert torch.equal(expected, exact.clamp(-448, 448).to(FP8).float())
    ours = made(triton_ops, *given).float()
    assert (ours[exact > 448] == 448).all()
    carried = ours == expected / 2
    assert carried.float().mean() < 0.1
    assert ((ours - expected).abs()[~carried] <= expected.abs()[~carried] / 8).all()


def test_blocks_follow_from_channels_and_fit_the_tensor_cores() -> None:
    sizes = {
        (c, n): triton_ops.conv_blocks(c, n, 1) for c in range(16, 2049, 16) for n in (32, 208)
    }
    assert {blocks.m for blocks in sizes.values()} == {128}
    assert {blocks.k for blocks in sizes.values()} == {32, 64, 128}
    assert sizes[2048, 208] == (128, 128, 128, 8, 3)
    assert sizes[416, 208] == (128, 128, 64, 8, 3)  # 448 channels read, not 512
    assert sizes[32, 32] == (128, 32, 32, 4, 3)
    assert triton_ops.conv_blocks(32, 32, 2) == (128, 32, 32, 4, 3)
    assert triton_ops.conv_blocks(512, 256, 2) == (128, 128, 64, 8, 3)


@pytest.mark.parametrize("pixels", [128, 256])
def test_boxes_are_pixels_that_follow_one_another(pixels: int) -> None:
    for h, w in [(1, 1), (4, 4), (8, 8), (32, 32), (64, 64), (4, 128), (2, 16), (32, 2)]:
        box = triton_ops.box_of(pixels, h, w)
        assert box is not None
        images, rows, columns = box
        assert images * rows * columns == pixels
        assert columns == w
        assert h % rows == 0
        assert images == 1 or rows == h
    for h, w in [(7, 5), (6, 8), (8, 6), (4, 512)]:
        assert triton_ops.box_of(pixels, h, w) is None


@pytest.mark.parametrize("kind", [torch.float16, torch.float32])
@pytest.mark.parametrize(
    ("rows", "side", "c"), costly((3, 8, 16), (5, 16, 48), (1, 32, 96), fast=1)
)
def test_colours(rows: int, side: int, c: int, kind: torch.dtype) -> None:
    """Every pixel of a block sees its neighbours in this block and the next, and no others."""
    weight = whole(3, c, 3, 3, seed=1) / 64
    x, bias = whole(rows, side, side, c).to(kind), torch.tensor([0.1, 0.0, -0.1])
    factor = torch.tensor([1.0, 2.0, 0.5])
    given = (x, by_block(weight).to(kind), factor, bias)
    expected = torch_ops.colours(*given)
    plain = torch.nn.functional.conv2d(x.float().permute(0, 3, 1, 2), weight, padding=1)
    plain = plain * factor[:, None, None] + bias[:, None, None]
    assert torch.equal(expected, to_uint8(torch.tanh(plain)).permute(0, 2, 3, 1))
    off = (triton_ops.colours(*given).int() - expected.int()).abs()
    assert expected.float().std() > 30
    assert off.max() <= 1
    assert (off > 0).double().mean() < 2e-3
    numbers = Numbers(torch.float16, split=True, channels=32)
    taps = numbers.keep_weight(torch.nn.functional.pad(by_block(weight), [0, -c % 32]))
    for ops in (torch_ops, triton_ops):
        off = (ops.colours(numbers.keep_map(x.float()), taps, factor, bias).int() - expected).abs()
        assert off.max() <= 1
        assert (off > 0).double().mean() < 2e-3


COMPILE = """
import subprocess, tempfile
from pathlib import Path
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from un0.engine import triton_conv, triton_ops
from un0.engine import triton_kernels as k

F, B, H, E = "*fp32", "*bf16", "*fp16", "*fp8e4nv"
ints = dict.fromkeys(
    ["N", "M", "B", "C", "GROUP", "STRIDE", "COS", "PART", "num_steps", "total"], "i32"
)
types = ints | dict.fromkeys(["seed", "indices", "class_ids"], "*i64")
types |= {"scale": "fp32", "pull_unit": "fp32"}

def build(kernel, constants, **pointers):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else (types | pointers).get(n, F) for n in names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    assert compile(source, target=GPUTarget("cuda", CAPABILITY, 32)).asm["cubin"]

def build_convolution(c, n, taps, x, out, side=0):
    # With boxes from maps of a side, or without.
    item = 1 if x == E else 2
    split = x == H
    blocks = triton_ops.conv_blocks(c, n, item)
    if side:
        blocks = triton_ops.box_blocks(c, n, item, split)
    constants = {"SPLIT": split, "TAPS": taps, "BLOCK_N": blocks.n, "BLOCK_K": blocks.k}
    pointers = {"x": x, "weight": x, "factor": F, "bias": F, "out": out}
    if side:
        kernel, box = triton_conv.convolve_boxes, triton_ops.box_of(blocks.m, side, side)
        constants |= dict(zip(("IMAGES", "ROWS", "COLUMNS"), box))
        pointers["x"] = f"tensordesc<{x[1:]}[{box[0]}, {box[1]}, {box[2]}, {blocks.k}]>"
        pointers["weight"] = f"tensordesc<{x[1:]}[1, {blocks.n}, {blocks.k}]>"
    else:
        kernel = triton_conv.convolve
        constants["BLOCK_M"] = blocks.m
    ptx = build_product(kernel, constants, pointers, x, blocks)
    assert ("cp.async.bulk.tensor.4d" if side else "cp.async.c") in ptx

def build_product(kernel, constants, pointers, x, blocks):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else pointers.get(n, "i32") for n in names}
    whole = [n for n in names if pointers.get(n, "")[:1] == "*" or n in ("pixels", "C", "N")]
    attrs = {(names.index(n),): [["tt.divisibility", 16]] for n in whole}
    built = compile(
        ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=attrs),
        target=GPUTarget("cuda", CAPABILITY, 32),
        options={"num_warps": blocks.warps, "num_stages": blocks.stages},
    )
    product = {
        (89, E): "mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32",
        (80, B): "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        (89, B): "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        (90, E): f"wgmma.mma_async.sync.aligned.m64n{blocks.n}k32.f32.e4m3.e4m3",
        (90, B): f"wgmma.mma_async.sync.aligned.m64n{blocks.n}k16.f32.bf16.bf16",
        (100, E): "tcgen05.mma.cta_group::1.kind::f8f6f4",
        (100, B): "tcgen05.mma.cta_group::1.kind::f16",
    }[CAPABILITY, B if x == H else x].replace("bf16.bf16", "f16.f16" if x == H else "bf16.bf16")
    assert product in built.asm["ptx"]
    assert ".local" not in built.asm["ptx"]
    # A block on consumers' Ampere and Ada; on those of 2022 and later in datacentres more.
    assert built.metadata.shared <= (227 if CAPABILITY >= 90 else 99) * 1024
    # The two halves of a large block spill a little at its end, and so does Blackwell's bf16.
    if x == E or (x == B and CAPABILITY != 100):
        assert uses_no_stack(built.asm["cubin"])
    return built.asm["ptx"]

def uses_no_stack(cubin):
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not tool.exists():
        return True
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(cubin)
        said = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True)
    return b" STACK:0 " in said.stdout

for x in (B, H) if CAPABILITY == 80 else (E, B):
    build_convolution(2048, 1024, 2, x, x)
    build_convolution(64, 64, 3, x, H if x == H else B)
if CAPABILITY == 90:
    for x in (E, B, H):
        build_convolution(32, 32, 2, x, x)
        build_convolution(416, 208, 3, x, x)
        build_convolution(512, 256, 2, x, x, 4)
        build_convolution(128, 64, 3, x, H if x == H else B, 64)
for x in (B, H):
    build_product(
        triton_conv.colours,
        {"SPLIT": x == H, "SIDE": 4, "BLOCK_M": 128, "BLOCK_N": 64, "BLOCK_K": 64},
        {"x": x, "weight": x, "factor": F, "bias": F, "out": "*u8"}, x,
        triton_ops.Blocks(128, 64, 64, 8, 4),
    )
build(k.initial_phases, {"BLOCK": 256})
build(k.conditioning_waves, {"WIDTH": 8})
for out in (F, B, H) if CAPABILITY == 80 else (F, B, E, H):
    pull = {E: B, H: F}.get(out, out)
    build(k.swing, {"PARTS": 2 if out == H else 1, "BLOCK": 1024}, out=out)
    parts = 3 if out == H else 1
    build(k.advance, {"PARTS": parts, "BLOCK": 1024}, pull=pull, drive=pull, swings=out)
build(k.bias_and_leak, {"BLOCK": 1024}, x=B, bias=B)
build(k.levels, {"BLOCK": 1024}, x=B, bias=B, out="*u8")
"""


@pytest.mark.parametrize("capability", costly(90, 80, 89, 100, fast=0))
def test_the_kernels_compile_for_gpus(capability: int) -> None:
    """To machine code of Ampere, Ada, Hopper and Blackwell; products on their tensor cores, and no
    register spilt to memory."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    code = COMPILE.replace("CAPABILITY", str(capability))
    # From a file, because Triton reads its kernels' source.
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
