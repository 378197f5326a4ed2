"""Triton's kernels: each against its twin in PyTorch's operations, and compiled for a real GPU.

The kernels run in Triton's interpreter here; that they also compile for a GPU is asked of Triton's
compiler, which needs none.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor

from un0.engine import torch_ops

triton_ops = pytest.importorskip("un0.engine.triton_ops")


def draw(*shape: int, scale: float = 1.0, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


@pytest.mark.parametrize(("scale", "most"), [(3.0, 2e-7), (1e4, 2e-6)])
def test_sines_of_any_phase(scale: float, most: float) -> None:
    theta = draw(3, 2000, scale=scale)
    swings = triton_ops.encode(theta, torch.float32, 1.0)
    exact = torch.stack([theta.double().sin(), theta.double().cos()], dim=1)
    assert (swings - exact).abs().max() < most


@pytest.mark.parametrize("m", [1, 2, 3, 8, 65])
def test_conditioning(m: int) -> None:
    given = (draw(5, m), draw(m, seed=1), draw(m, m, seed=2), 6)
    assert triton_ops.conditioning_waves(*given).shape == (6, 5, 2, m)
    torch.testing.assert_close(
        triton_ops.conditioning_waves(*given), torch_ops.conditioning_waves(*given),
        rtol=0, atol=3e-4,  # what rounding grows to in six strong steps
    )  # fmt: skip


@pytest.mark.parametrize("n", [16, 1040, 2048])
def test_one_step(n: int) -> None:
    """Rows of one class and of several, a block and more, whole blocks and not."""
    m, rows = 3, 4
    theta, pull, omega = draw(rows, n), draw(rows, 2, n, seed=1), draw(n, seed=2)
    drive, wave = draw(6, m, n, seed=3), draw(rows, 2, m, seed=4)
    class_ids = torch.tensor([5, 0, 0, 2])
    given = (theta, pull, omega, drive, class_ids, wave, torch.float32, 1.0)
    for ours, theirs in zip(triton_ops.advance(*given), torch_ops.advance(*given), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_read_out_is_nhwc() -> None:
    theta, reference = draw(3, 112), draw(3, seed=1)
    ours = triton_ops.read_out(theta, reference, torch.float32)
    assert ours.shape == (3, 4, 4, 14)
    torch.testing.assert_close(
        ours, torch_ops.read_out(theta, reference, torch.float32), rtol=0, atol=1e-6
    )


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


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from un0.engine import triton_kernels as k

F, B, E = "*fp32", "*bf16", "*fp8e4nv"
ints = dict.fromkeys(["N", "M", "B", "C", "GROUP", "num_steps", "total"], "i32")
types = ints | {"seed": "*i64", "indices": "*i64", "class_ids": "*i64", "scale": "fp32"}

def build(kernel, constants, **pointers):
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else (types | pointers).get(n, F) for n in names}
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants)
    assert compile(source, target=GPUTarget("cuda", CAPABILITY, 32)).asm["cubin"]

build(k.initial_phases, {"BLOCK": 256})
build(k.conditioning_waves, {"WIDTH": 8})
for out in (F, B, E):
    pull = B if out == E else out
    build(k.swing, {"BLOCK": 1024}, out=out)
    build(k.advance, {"BLOCK": 1024}, pull=pull, drive=pull, swings=out)
build(k.bias_and_leak, {"BLOCK": 1024}, x=B, bias=B)
build(k.levels, {"BLOCK": 1024}, x=B, bias=B, out="*u8")
"""


@pytest.mark.parametrize("capability", [89, 90, 100])
def test_the_kernels_compile_for_gpus(capability: int) -> None:
    """To machine code of Ada, Hopper and Blackwell."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    code = COMPILE.replace("CAPABILITY", str(capability))
    # From a file, because Triton reads its kernels' source.
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr[-2000:]
