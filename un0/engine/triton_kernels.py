"""The small steps of the GPU engine as Triton kernels; ``un0.engine.triton_ops`` launches them.

Parameters without a type are pointers or whole numbers, as Triton has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import triton
import triton.language as tl

from un0.config import SEED_SIZE
from un0.noise import PHASE_STEP

_kernel: Callable[[Callable[..., Any]], Any] = triton.jit
_STEP = tl.constexpr(PHASE_STEP)
_PIXELS = tl.constexpr(SEED_SIZE**2)
# Adding and taking away 1.5 * 2**23 rounds a small float32 to a whole number, ties to even.
_ROUNDER = tl.constexpr(12582912.0)
# Cody and Waite's split of pi / 2: a quarter turn times the first part is exact up to 1e5 radians.
_QUARTERS = tl.constexpr(0.6366197723675814)
_QUARTER_1 = tl.constexpr(1.5703125)
_QUARTER_2 = tl.constexpr(4.837512969970703e-4)
_QUARTER_3 = tl.constexpr(7.549789954891882e-8)


@_kernel
def _sin_cos(x):
    """Both at once by Cephes' polynomials: within 1e-7 near zero, 1e-6 up to 1e5 radians.

    The library's functions carry a slow path for huge arguments that fills the instruction cache.
    """
    shifted = x * _QUARTERS + _ROUNDER
    turns = shifted - _ROUNDER
    quarter = turns.to(tl.int32) & 3
    r = ((x - turns * _QUARTER_1) - turns * _QUARTER_2) - turns * _QUARTER_3
    z = r * r
    s = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * r + r
    c = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z
    c += 1.0 - 0.5 * z
    swapped = (quarter & 1) == 1
    sin, cos = tl.where(swapped, c, s), tl.where(swapped, s, c)
    sin = tl.where(quarter >= 2, -sin, sin)
    cos = tl.where((quarter == 1) | (quarter == 2), -cos, cos)
    return sin, cos


@_kernel
def initial_phases(seed, indices, theta, phi, N, M, BLOCK: tl.constexpr):
    """Philox4x32-10 as in ``un0.noise``: key the seed, counter (block, 0, index low, index high).

    ``tl.philox`` has Random123's rounds and takes the counter as it is; ``tl.rand`` would put the
    offset into the first word alone and another map to floats behind it.
    """
    row = tl.program_id(1).to(tl.int64)
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    index = tl.load(indices + row)
    low = (index & 0xFFFFFFFF).to(tl.uint32)
    high = ((index >> 32) & 0xFFFFFFFF).to(tl.uint32)
    zero = tl.zeros((BLOCK,), tl.uint32)
    a, b, c, d = tl.philox(tl.load(seed), j.to(tl.uint32), zero, zero + low, zero + high)
    _store_phases(a, 4 * j, row, theta, phi, N, M)
    _store_phases(b, 4 * j + 1, row, theta, phi, N, M)
    _store_phases(c, 4 * j + 2, row, theta, phi, N, M)
    _store_phases(d, 4 * j + 3, row, theta, phi, N, M)


@_kernel
def _store_phases(word, f, row, theta, phi, N, M):
    phase = ((word >> 8).to(tl.int32) - 8388608).to(tl.float32) * _STEP
    place = (f % _PIXELS) * (N // _PIXELS) + f // _PIXELS  # pixel order
    tl.store(theta + row * N + place, phase, mask=f < N)
    tl.store(phi + row * M + f - N, phase, mask=(f >= N) & (f < N + M))


@_kernel
def conditioning_waves(phi, omega, K, waves, B, M, num_steps, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, WIDTH)
    inside = i < M
    x = tl.load(phi + row * M + i, mask=inside, other=0.0)
    rate = tl.load(omega + i, mask=inside, other=0.0)
    pairs = inside[:, None] & inside[None, :]
    coupling = tl.load(K + i[:, None] * M + i[None, :], mask=pairs, other=0.0)
    for step in range(num_steps):
        sin, cos = _sin_cos(x)
        out = waves + ((step * B + row) * 2) * M + i
        tl.store(out, sin, mask=inside)
        tl.store(out + M, cos, mask=inside)
        pull_sin = tl.sum(coupling * sin[None, :], axis=1)
        pull_cos = tl.sum(coupling * cos[None, :], axis=1)
        x += rate + cos * pull_sin - sin * pull_cos


@_kernel
def swing(
    theta, reference, out, scale, N, GROUP, STRIDE, COS, PART, PARTS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """sin of theta - reference, and cos of it COS later; a GROUP of oscillators has STRIDE."""
    row = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    x = tl.load(theta + row * N + n, mask=inside, other=0.0) - tl.load(reference + row)
    sin, cos = _sin_cos(x)
    place = out + (row * (N // GROUP) + n // GROUP) * STRIDE + n % GROUP
    store_parts(place, sin * scale, inside, PART, PARTS)
    store_parts(place + COS, cos * scale, inside, PART, PARTS)


@_kernel
def store_parts(place, x, inside, PART, PARTS: tl.constexpr):
    """x as one number, as high and low half, or as high, low and high, PART apart."""
    high = x.to(place.dtype.element_ty)
    tl.store(place, high, mask=inside)
    if PARTS > 1:
        low = (x - high.to(tl.float32)).to(place.dtype.element_ty)
        tl.store(place + PART, low, mask=inside)
    if PARTS > 2:
        tl.store(place + 2 * PART, high, mask=inside)


@_kernel
def advance(
    theta, pull, pull_unit, omega, drive, class_ids, wave, new_theta, swings, scale, N, M,
    PARTS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    x = tl.load(theta + row * N + n, mask=inside, other=0.0)
    pull_sin = tl.load(pull + row * 2 * N + n, mask=inside, other=0.0).to(tl.float32)
    pull_cos = tl.load(pull + row * 2 * N + N + n, mask=inside, other=0.0).to(tl.float32)
    pull_sin, pull_cos = pull_sin * pull_unit, pull_cos * pull_unit
    class_id = tl.load(class_ids + row)
    for m in range(M):
        d = tl.load(drive + (class_id * M + m) * N + n, mask=inside, other=0.0).to(tl.float32)
        pull_sin += d * tl.load(wave + row * 2 * M + m)
        pull_cos += d * tl.load(wave + row * 2 * M + M + m)
    rate = tl.load(omega + n, mask=inside, other=0.0)
    sin, cos = _sin_cos(x)
    x += rate + cos * pull_sin - sin * pull_cos
    tl.store(new_theta + row * N + n, x, mask=inside)
    place = swings + row * 2 * PARTS * N + n
    sin, cos = _sin_cos(x)
    store_parts(place, sin * scale, inside, N, PARTS)
    store_parts(place + PARTS * N, cos * scale, inside, N, PARTS)


@_kernel
def bias_and_leak(x, bias, total, C, BLOCK: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    i = begin + tl.arange(0, BLOCK)
    inside = i < total
    channel = ((begin % C).to(tl.int32) + tl.arange(0, BLOCK)) % C  # 64-bit division is slow
    y = tl.load(x + i, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + i, tl.where(y >= 0, y, 0.2 * y).to(x.dtype.element_ty), mask=inside)


@_kernel
def levels(x, bias, out, total, BLOCK: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    i = begin + tl.arange(0, BLOCK)
    inside = i < total
    colour = ((begin % 3).to(tl.int32) + tl.arange(0, BLOCK)) % 3
    y = tl.load(x + i, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias + colour, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + i, level_of(y), mask=inside)


@_kernel
def level_of(y):
    """The level 0 .. 255 of tanh y."""
    tanh = 1.0 - 2.0 / (tl.exp(2.0 * y) + 1.0)  # +-1 where the exponential over- or underflows
    level = ((tanh + 1.0) * 127.5 + _ROUNDER) - _ROUNDER
    return level.to(tl.int32).to(tl.uint8)
