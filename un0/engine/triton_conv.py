"""The fused decoder's convolutions in Triton: those of ``un0.engine.torch_ops``, one kernel each.

A program makes a block of pixels and of new channels as one product on the tensor cores. For each
slice of the old channels and each tap it reads the pixels that the tap falls on, zeros outside of
the map, and the tap's weights. Pixels are read one by one, or as boxes that Hopper's copy engine
fetches and fills with zeros. Taps change fastest: they read the same pixels again and again, which
stay in the caches.

SPLIT: numbers are halves (``un0.engine.precisions``), two of C channels in maps and three in
weights. fp8 products are added up as the tensor cores do it, on Hopper in fewer bits than float32
has: docs/gpu.md has what that costs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from un0.engine.precisions import FP8_MAX, HALF_MAX
from un0.engine.triton_kernels import level_of, store_parts

_kernel: Callable[[Callable[..., Any]], Any] = triton.jit
_MAX, _HALF_MAX = tl.constexpr(FP8_MAX), tl.constexpr(HALF_MAX)


@_kernel
def convolve(
    x, weight, factor, bias, out, pixels, H, W, C, N, SPLIT: tl.constexpr, TAPS: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """x (pixels, C) of maps H x W, weight (phases, TAPS**2, N, C). TAPS is 3, or 2 to enlarge."""
    n, phase, pixel = _block(N, BLOCK_M, BLOCK_N, (4 - TAPS) * (4 - TAPS))
    n, pixel = n + tl.arange(0, BLOCK_N), pixel + tl.arange(0, BLOCK_M)
    phase_y, phase_x = phase // (4 - TAPS), phase % (4 - TAPS)
    top, left = pixel // W % H + phase_y - 1, pixel % W + phase_x - 1  # where the first tap falls
    seen = tl.zeros((BLOCK_M,), tl.int32)  # bit t: whether tap t falls on the map
    for t in tl.static_range(TAPS * TAPS):
        u, v = top + t // TAPS, left + t % TAPS
        seen |= ((u >= 0) & (u < H) & (v >= 0) & (v < W)).to(tl.int32) << t
    seen = tl.where(pixel < pixels, seen, 0)
    C_x, C_w = _widths(C, SPLIT)
    k = tl.arange(0, BLOCK_K)
    first = pixel.to(tl.int64) + (phase_y - 1) * W + phase_x - 1
    x_place = x + first[:, None] * C_x + k[None, :]
    weight_place = weight + (phase * TAPS * TAPS * N + n).to(tl.int64)[:, None] * C_w + k[None, :]
    made = (n < N)[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(tl.cdiv(C_w, BLOCK_K) * TAPS * TAPS):
        tap, begin = step % (TAPS * TAPS), step // (TAPS * TAPS) * BLOCK_K
        inside = (k < C_w - begin)[None, :]
        a = tl.load(
            x_place + ((tap // TAPS * W + tap % TAPS) * C_x + _in_x(begin, C, SPLIT)),
            mask=((seen >> tap & 1) != 0)[:, None] & inside, other=0.0, cache_modifier=".ca",
        )  # fmt: skip
        b = tl.load(weight_place + (tap * N * C_w + begin), mask=made & inside, other=0.0)
        # Engines multiply no float32 here; tests do, and want it not cut to TF32.
        sums = tl.dot(a, b.T, sums, input_precision="ieee")
    _finish(sums, factor, bias, out, pixel, pixels, n, N, W, phase_y, phase_x, SPLIT, 4 - TAPS)


@_kernel
def convolve_boxes(
    x, weight, factor, bias, out, pixels, H, W, C, N, SPLIT: tl.constexpr, TAPS: tl.constexpr,
    IMAGES: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """The same of x (images, H, W, C) and weight (phases * TAPS**2, N, C) as tensor descriptors.

    A box is a few images, some rows of one, or some pixels of a row: they follow one another.
    """
    BLOCK_M: tl.constexpr = IMAGES * ROWS * COLUMNS
    n, phase, pixel = _block(N, BLOCK_M, BLOCK_N, (4 - TAPS) * (4 - TAPS))
    phase_y, phase_x = phase // (4 - TAPS), phase % (4 - TAPS)
    image, row, column = pixel // (H * W), pixel // W % H, pixel % W
    _C_x, C_w = _widths(C, SPLIT)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(tl.cdiv(C_w, BLOCK_K) * TAPS * TAPS):
        tap, begin = step % (TAPS * TAPS), step // (TAPS * TAPS) * BLOCK_K
        top, left = row + phase_y - 1 + tap // TAPS, column + phase_x - 1 + tap % TAPS
        a = x.load([image, top, left, _in_x(begin, C, SPLIT)]).reshape(BLOCK_M, BLOCK_K)
        b = weight.load([phase * TAPS * TAPS + tap, n, begin]).reshape(BLOCK_N, BLOCK_K)
        sums = tl.dot(a, b.T, sums)
    n, pixel = n + tl.arange(0, BLOCK_N), pixel + tl.arange(0, BLOCK_M)
    _finish(sums, factor, bias, out, pixel, pixels, n, N, W, phase_y, phase_x, SPLIT, 4 - TAPS)


@_kernel
def colours(
    x, weight, factor, bias, out, blocks, H, W, C, SPLIT: tl.constexpr, SIDE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """x (B, H, W, C), weight of ``folding.by_block``, SIDE its BLOCK_SIDE; levels (B, H, W, 3)."""
    TAPS: tl.constexpr = SIDE + 2
    N: tl.constexpr = SIDE * SIDE * 3
    block = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    n, k = tl.arange(0, BLOCK_N), tl.arange(0, BLOCK_K)
    row, column = block // (W // SIDE) * SIDE, block % (W // SIDE) * SIDE
    top, left = row % H - 1, column - 1  # where the first tap falls
    rows = tl.zeros((BLOCK_M,), tl.int32)  # bit t: whether row t of the taps falls on the map
    columns = tl.zeros((BLOCK_M,), tl.int32)
    for t in tl.static_range(TAPS):
        rows |= ((top + t >= 0) & (top + t < H)).to(tl.int32) << t
        columns |= ((left + t >= 0) & (left + t < W)).to(tl.int32) << t
    rows = tl.where(block < blocks, rows, 0)
    C_x, C_w = _widths(C, SPLIT)
    first = (row - 1).to(tl.int64) * W + left
    x_place = x + first[:, None] * C_x + k[None, :]
    weight_place = weight + n[:, None] * C_w + k[None, :]
    made = (n < N)[:, None]
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for step in range(tl.cdiv(C_w, BLOCK_K) * TAPS * TAPS):
        tap, begin = step % (TAPS * TAPS), step // (TAPS * TAPS) * BLOCK_K
        u, v = tap // TAPS, tap % TAPS
        inside = (k < C_w - begin)[None, :]
        seen = ((rows >> u) & (columns >> v) & 1) != 0
        a = tl.load(
            x_place + ((u * W + v) * C_x + _in_x(begin, C, SPLIT)),
            mask=seen[:, None] & inside, other=0.0, cache_modifier=".ca",
        )  # fmt: skip
        b = tl.load(weight_place + (tap * N * C_w + begin), mask=made & inside, other=0.0)
        sums = tl.dot(a, b.T, sums, input_precision="ieee")
    y = sums * tl.load(factor + n % 3)[None, :] + tl.load(bias + n % 3)[None, :]
    pixel = n // 3
    place = (row.to(tl.int64) * W + column)[:, None] + (pixel // SIDE * W + pixel % SIDE)[None, :]
    tl.store(
        out + place * 3 + (n % 3)[None, :], level_of(y),
        mask=(block < blocks)[:, None] & (n < N)[None, :],
    )  # fmt: skip


@_kernel
def _block(N, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, PHASES: tl.constexpr):
    """This program's first new channel, its phase and first pixel; neighbours share pixels."""
    program, columns = tl.program_id(0), tl.cdiv(N, BLOCK_N)
    n = program % columns * BLOCK_N
    return n, program // columns % PHASES, program // (columns * PHASES) * BLOCK_M


@_kernel
def _widths(C, SPLIT: tl.constexpr):
    """Numbers in a pixel and in a row of the weight."""
    C_x, C_w = C, C
    if SPLIT:
        C_x, C_w = 2 * C, 3 * C
    return C_x, C_w


@_kernel
def _in_x(begin, C, SPLIT: tl.constexpr):
    """Where a weight's slice is in a pixel: low, high and high meet high, low and high."""
    if SPLIT:
        begin = tl.where(begin < 2 * C, begin, begin - 2 * C)
    return begin


@_kernel
def _finish(
    sums, factor, bias, out, pixel, pixels, n, N, W, phase_y, phase_x, SPLIT: tl.constexpr,
    GROW: tl.constexpr,
):  # fmt: skip
    """Factor, bias and LeakyReLU; out (pixels * GROW**2, N), or 2 N as halves."""
    made = n < N
    y = sums * tl.load(factor + n, mask=made, other=0.0)[None, :]
    y += tl.load(bias + n, mask=made, other=0.0)[None, :]
    y = tl.where(y >= 0, y, 0.2 * y)
    PARTS: tl.constexpr = 2 if SPLIT and out.dtype.element_ty == tl.float16 else 1
    if out.dtype.element_ty == tl.float8e4nv:
        y = tl.clamp(y, -_MAX, _MAX)
    if PARTS == 2:
        y = tl.clamp(y, -_HALF_MAX, _HALF_MAX)
    row, column = pixel // W, pixel % W  # rows of all images are counted on
    place = (row * GROW + phase_y).to(tl.int64) * (W * GROW) + column * GROW + phase_x
    store_parts(
        out + place[:, None] * (PARTS * N) + n[None, :], y,
        (pixel < pixels)[:, None] & made[None, :], N, PARTS,
    )  # fmt: skip
