"""The fused decoder's convolution in Triton: ``un0.engine.torch_ops.convolve`` as one kernel.

A program makes BLOCK_M pixels of BLOCK_N channels of one phase, as a product on the tensor cores:
for each slice of the old channels and each tap it reads the pixels that the tap falls on, zeros
outside of the map, and the tap's weights. Taps change fastest: they read the same pixels again and
again, which stay in the L1 cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from un0.engine.fused_decoder import FP8_MAX

_kernel: Callable[[Callable[..., Any]], Any] = triton.jit
_MAX = tl.constexpr(FP8_MAX)


@_kernel
def convolve(
    x, weight, factor, bias, out, pixels, H, W, C, N,
    TAPS: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """x (pixels, C) of maps H x W, weight (phases, TAPS**2, N, C). TAPS is 3, or 2 to enlarge."""
    GROW: tl.constexpr = 4 - TAPS
    program, columns = tl.program_id(0), tl.cdiv(N, BLOCK_N)
    n = program % columns * BLOCK_N + tl.arange(0, BLOCK_N)
    phase = program // columns % (GROW * GROW)
    pixel = program // (columns * GROW * GROW) * BLOCK_M + tl.arange(0, BLOCK_M)
    k = tl.arange(0, BLOCK_K)
    phase_y, phase_x = phase // GROW, phase % GROW
    row, column = pixel // W, pixel % W  # rows of all images are counted on
    top, left = row % H + phase_y - 1, column + phase_x - 1  # where the first tap falls
    seen = tl.zeros((BLOCK_M,), tl.int32)  # bit t: whether tap t falls on the map
    for t in tl.static_range(TAPS * TAPS):
        u, v = top + t // TAPS, left + t % TAPS
        seen |= ((u >= 0) & (u < H) & (v >= 0) & (v < W)).to(tl.int32) << t
    seen = tl.where(pixel < pixels, seen, 0)
    first = pixel.to(tl.int64) + (phase_y - 1) * W + phase_x - 1
    x_place = x + first[:, None] * C + k[None, :]
    weight_place = weight + (phase * TAPS * TAPS * N + n).to(tl.int64)[:, None] * C + k[None, :]
    made = n < N
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(tl.cdiv(C, BLOCK_K) * TAPS * TAPS):
        tap, begin = step % (TAPS * TAPS), step // (TAPS * TAPS) * BLOCK_K
        inside = (k < C - begin)[None, :]
        a = tl.load(
            x_place + ((tap // TAPS * W + tap % TAPS) * C + begin),
            mask=((seen >> tap & 1) != 0)[:, None] & inside, other=0.0, cache_modifier=".ca",
        )  # fmt: skip
        b = tl.load(
            weight_place + (tap * N * C + begin), mask=made[:, None] & inside, other=0.0
        )  # fmt: skip
        # Hopper adds up fp8 products in 14 bits or so: every block goes to float32 (docs/gpu.md).
        # Of other types all sums are float32, and float32 is not cut to TF32.
        sums = tl.dot(a, b.T, sums, max_num_imprecise_acc=BLOCK_K, input_precision="ieee")
    y = sums * tl.load(factor + n, mask=made, other=0.0)[None, :]
    y += tl.load(bias + n, mask=made, other=0.0)[None, :]
    y = tl.where(y >= 0, y, 0.2 * y)
    kind = out.dtype.element_ty
    if kind == tl.float8e4nv:
        y = tl.clamp(y, -_MAX, _MAX)
    place = (row * GROW + phase_y).to(tl.int64) * (W * GROW) + column * GROW + phase_x
    tl.store(
        out + place[:, None] * N + n[None, :], y.to(kind),
        mask=(pixel < pixels)[:, None] & made[None, :],
    )  # fmt: skip
