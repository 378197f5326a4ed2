"""The small steps of the GPU engine as Triton kernels: ``un0.engine.torch_ops``, one kernel each.

Each reads its operands once and writes its result once; between products nothing else touches
memory. The drive of a class is read where it lies, so images of a class share its rows in the
cache. Without a GPU, Triton's interpreter (``TRITON_INTERPRET=1``) runs them on CPU tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from un0.config import SEED_SIZE
from un0.engine import torch_ops
from un0.noise import PHASE_STEP

name = "triton"

_kernel: Callable[[Callable[..., Any]], Any] = triton.jit
_STEP = tl.constexpr(PHASE_STEP)
_PIXELS = tl.constexpr(SEED_SIZE**2)
# Adding and taking away 1.5 * 2**23 rounds a small float32 to a whole number, ties to even.
_ROUNDER = tl.constexpr(12582912.0)

BLOCK = 1024
MAX_CONDITIONING = 64  # a larger K_cond does not fit one program's registers


@_kernel
def _initial_phases(seed, indices, theta, phi, N, M, BLOCK: tl.constexpr):
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
def _conditioning_waves(phi, omega, K, waves, B, M, num_steps, WIDTH: tl.constexpr):
    row = tl.program_id(0)
    i = tl.arange(0, WIDTH)
    inside = i < M
    x = tl.load(phi + row * M + i, mask=inside, other=0.0)
    rate = tl.load(omega + i, mask=inside, other=0.0)
    pairs = inside[:, None] & inside[None, :]
    coupling = tl.load(K + i[:, None] * M + i[None, :], mask=pairs, other=0.0)
    for step in range(num_steps):
        sin, cos = tl.sin(x), tl.cos(x)
        out = waves + ((step * B + row) * 2) * M + i
        tl.store(out, sin, mask=inside)
        tl.store(out + M, cos, mask=inside)
        pull_sin = tl.sum(coupling * sin[None, :], axis=1)
        pull_cos = tl.sum(coupling * cos[None, :], axis=1)
        x += rate + cos * pull_sin - sin * pull_cos


@_kernel
def _swing(theta, reference, out, scale, N, GROUP, BLOCK: tl.constexpr):
    """sin and cos of theta - reference; within each GROUP of oscillators all sin, then all cos."""
    row = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    x = tl.load(theta + row * N + n, mask=inside, other=0.0) - tl.load(reference + row)
    place = row * 2 * N + n // GROUP * (2 * GROUP) + n % GROUP
    kind = out.dtype.element_ty
    tl.store(out + place, (tl.sin(x) * scale).to(kind), mask=inside)
    tl.store(out + place + GROUP, (tl.cos(x) * scale).to(kind), mask=inside)


@_kernel
def _advance(
    theta, pull, omega, drive, class_ids, wave, new_theta, swings, scale, N, M, BLOCK: tl.constexpr
):
    row = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = n < N
    x = tl.load(theta + row * N + n, mask=inside, other=0.0)
    pull_sin = tl.load(pull + row * 2 * N + n, mask=inside, other=0.0).to(tl.float32)
    pull_cos = tl.load(pull + row * 2 * N + N + n, mask=inside, other=0.0).to(tl.float32)
    class_id = tl.load(class_ids + row)
    for m in range(M):
        d = tl.load(drive + (class_id * M + m) * N + n, mask=inside, other=0.0).to(tl.float32)
        pull_sin += d * tl.load(wave + row * 2 * M + m)
        pull_cos += d * tl.load(wave + row * 2 * M + M + m)
    rate = tl.load(omega + n, mask=inside, other=0.0)
    x += rate + tl.cos(x) * pull_sin - tl.sin(x) * pull_cos
    tl.store(new_theta + row * N + n, x, mask=inside)
    kind = swings.dtype.element_ty
    out = swings + row * 2 * N + n
    tl.store(out, (tl.sin(x) * scale).to(kind), mask=inside)
    tl.store(out + N, (tl.cos(x) * scale).to(kind), mask=inside)


@_kernel
def _bias_and_leak(x, bias, total, C, BLOCK: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    i = begin + tl.arange(0, BLOCK)
    inside = i < total
    channel = ((begin % C).to(tl.int32) + tl.arange(0, BLOCK)) % C  # 64-bit division is slow
    y = tl.load(x + i, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias + channel, mask=inside, other=0.0).to(tl.float32)
    tl.store(x + i, tl.where(y >= 0, y, 0.2 * y).to(x.dtype.element_ty), mask=inside)


@_kernel
def _levels(x, bias, out, total, BLOCK: tl.constexpr):
    begin = tl.program_id(0).to(tl.int64) * BLOCK
    i = begin + tl.arange(0, BLOCK)
    inside = i < total
    colour = ((begin % 3).to(tl.int32) + tl.arange(0, BLOCK)) % 3
    y = tl.load(x + i, mask=inside, other=0.0).to(tl.float32)
    y += tl.load(bias + colour, mask=inside, other=0.0).to(tl.float32)
    tanh = 1.0 - 2.0 / (tl.exp(2.0 * y) + 1.0)  # +-1 where the exponential over- or underflows
    level = ((tanh + 1.0) * 127.5 + _ROUNDER) - _ROUNDER
    tl.store(out + i, level.to(tl.int32).to(tl.uint8), mask=inside)


def initial_phases(seed: Tensor, indices_B: Tensor, n: int, m: int) -> tuple[Tensor, Tensor]:
    rows = len(indices_B)
    theta_BN = torch.empty(rows, n, device=indices_B.device)
    phi_BM = torch.empty(rows, m, device=indices_B.device)
    grid = (triton.cdiv(n + m, 4 * 256), rows)
    _initial_phases[grid](seed, indices_B, theta_BN, phi_BM, n, m, BLOCK=256)
    return theta_BN, phi_BM


pixel_order = torch_ops.pixel_order


def conditioning_waves(
    phi_BM: Tensor, omega_M: Tensor, K_MM: Tensor, num_steps: int
) -> Tensor:
    rows, m = phi_BM.shape
    if m > MAX_CONDITIONING:
        return torch_ops.conditioning_waves(phi_BM, omega_M, K_MM, num_steps)
    waves = phi_BM.new_empty(num_steps, rows, 2, m)
    width = max(2, triton.next_power_of_2(m))
    _conditioning_waves[(rows,)](
        phi_BM, omega_M, K_MM, waves, rows, m, num_steps, WIDTH=width, num_warps=1
    )
    return waves


def encode(theta_BN: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    rows, n = theta_BN.shape
    out = theta_BN.new_empty(rows, 2, n, dtype=dtype)
    reference_B = theta_BN.new_zeros(rows)
    _swing[_grid(theta_BN)](theta_BN, reference_B, out, scale, n, n, BLOCK=BLOCK)
    return out


def advance(
    theta_BN: Tensor,
    pull_B2N: Tensor,
    omega_N: Tensor,
    drive_CMN: Tensor,
    class_ids_B: Tensor,
    wave_B2M: Tensor,
    dtype: torch.dtype,
    scale: float,
) -> tuple[Tensor, Tensor]:
    rows, n = theta_BN.shape
    new_theta_BN = torch.empty_like(theta_BN)
    swings = theta_BN.new_empty(rows, 2, n, dtype=dtype)
    _advance[_grid(theta_BN)](
        theta_BN, pull_B2N, omega_N, drive_CMN, class_ids_B, wave_B2M, new_theta_BN, swings,
        scale, n, drive_CMN.shape[1], BLOCK=BLOCK,
    )  # fmt: skip
    return new_theta_BN, swings


def read_out(theta_BN: Tensor, reference_B: Tensor, dtype: torch.dtype) -> Tensor:
    rows, n = theta_BN.shape
    channels = n // SEED_SIZE**2
    out = theta_BN.new_empty(rows, SEED_SIZE, SEED_SIZE, 2 * channels, dtype=dtype)
    _swing[_grid(theta_BN)](theta_BN, reference_B, out, 1.0, n, channels, BLOCK=BLOCK)
    return out


def bias_and_leak(x_BCHW: Tensor, bias_C: Tensor) -> Tensor:
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    total = x_BCHW.numel()
    _bias_and_leak[(triton.cdiv(total, BLOCK),)](x_BCHW, bias_C, total, len(bias_C), BLOCK=BLOCK)
    return x_BCHW


def levels(x_B3HW: Tensor, bias_3: Tensor) -> Tensor:
    x_BHW3 = x_B3HW.permute(0, 2, 3, 1).contiguous()
    out = torch.empty_like(x_BHW3, dtype=torch.uint8)
    total = out.numel()
    _levels[(triton.cdiv(total, BLOCK),)](x_BHW3, bias_3, out, total, BLOCK=BLOCK)
    return out


def _grid(theta_BN: Tensor) -> tuple[int, int]:
    rows, n = theta_BN.shape
    return triton.cdiv(n, BLOCK), rows
