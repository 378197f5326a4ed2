"""The small steps of the GPU engine in Triton: ``un0.engine.torch_ops``, one kernel each.

Each reads its operands once and writes its result once; between products nothing else touches
memory. The drive of a class is read where it lies, so images of a class share its rows in the
cache. Without a GPU, Triton's interpreter (``TRITON_INTERPRET=1``) runs them on CPU tensors.
"""

from __future__ import annotations

import torch
import triton
from torch import Tensor

from un0.config import SEED_SIZE
from un0.engine import torch_ops, triton_conv
from un0.engine import triton_kernels as kernels

name = "triton"

BLOCK = 1024
MAX_CONDITIONING = 64  # a larger K_cond does not fit one program's registers
STAGES = 3  # 96 KiB of shared memory for a convolution's largest blocks: what an Ada GPU has


def initial_phases(seed: Tensor, indices_B: Tensor, n: int, m: int) -> tuple[Tensor, Tensor]:
    rows = len(indices_B)
    theta_BN = torch.empty(rows, n, device=indices_B.device)
    phi_BM = torch.empty(rows, m, device=indices_B.device)
    grid = (triton.cdiv(n + m, 4 * 256), rows)
    kernels.initial_phases[grid](seed, indices_B, theta_BN, phi_BM, n, m, BLOCK=256)
    return theta_BN, phi_BM


pixel_order = torch_ops.pixel_order


def conditioning_waves(phi_BM: Tensor, omega_M: Tensor, K_MM: Tensor, num_steps: int) -> Tensor:
    rows, m = phi_BM.shape
    if m > MAX_CONDITIONING:
        return torch_ops.conditioning_waves(phi_BM, omega_M, K_MM, num_steps)
    waves = phi_BM.new_empty(num_steps, rows, 2, m)
    width = max(2, triton.next_power_of_2(m))
    kernels.conditioning_waves[(rows,)](
        phi_BM, omega_M, K_MM, waves, rows, m, num_steps, WIDTH=width, num_warps=1
    )
    return waves


def encode(theta_BN: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    rows, n = theta_BN.shape
    out = theta_BN.new_empty(rows, 2, n, dtype=dtype)
    reference_B = theta_BN.new_zeros(rows)
    kernels.swing[_grid(theta_BN)](theta_BN, reference_B, out, scale, n, n, BLOCK=BLOCK)
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
    kernels.advance[_grid(theta_BN)](
        theta_BN, pull_B2N, omega_N, drive_CMN, class_ids_B, wave_B2M, new_theta_BN, swings,
        scale, n, drive_CMN.shape[1], BLOCK=BLOCK,
    )  # fmt: skip
    return new_theta_BN, swings


def read_out(theta_BN: Tensor, reference_B: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    rows, n = theta_BN.shape
    channels = n // SEED_SIZE**2
    out = theta_BN.new_empty(rows, SEED_SIZE, SEED_SIZE, 2 * channels, dtype=dtype)
    kernels.swing[_grid(theta_BN)](theta_BN, reference_B, out, scale, n, channels, BLOCK=BLOCK)
    return out


def bias_and_leak(x_BCHW: Tensor, bias_C: Tensor) -> Tensor:
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    total = x_BCHW.numel()
    kernels.bias_and_leak[(triton.cdiv(total, BLOCK),)](
        x_BCHW, bias_C, total, len(bias_C), BLOCK=BLOCK
    )
    return x_BCHW


def convolve(
    x_BHWC: Tensor, weight_PTNC: Tensor, factor_N: Tensor, bias_N: Tensor, dtype: torch.dtype
) -> Tensor:
    b, h, w, c = x_BHWC.shape
    phases, n = len(weight_PTNC), weight_PTNC.shape[2]
    side, grow = (2, 2) if phases == 4 else (3, 1)
    out = x_BHWC.new_empty(b, h * grow, w * grow, n, dtype=dtype)
    block_m, block_n, block_k, warps = conv_blocks(c, n, x_BHWC.element_size())
    grid = (triton.cdiv(b * h * w, block_m) * phases * triton.cdiv(n, block_n),)
    triton_conv.convolve[grid](
        x_BHWC, weight_PTNC, factor_N, bias_N, out, b * h * w, h, w, c, n,
        TAPS=side, BLOCK_M=block_m, BLOCK_N=block_n, BLOCK_K=block_k,
        num_warps=warps, num_stages=STAGES,
    )  # fmt: skip
    return out


def conv_blocks(c: int, n: int, item: int) -> tuple[int, int, int, int]:
    """Pixels, new channels and old channels of a block, and its warps, for c channels of ``item``
    bytes to n.

    Large ones, with few rows to spare; by the channels alone, so that no timing and no number of
    images changes the order in which sums are added up.
    """
    block_n = min(128, max(32, triton.next_power_of_2(n)))
    most = 128 // item
    if c <= most // 4:
        block_k = max(16, most // 4)
    else:
        block_k = min(most, most // 2, key=lambda k: triton.cdiv(c, k) * k)
    return 128, block_n, block_k, 8 if block_n == 128 else 4


def levels(x_B3HW: Tensor, bias_3: Tensor) -> Tensor:
    x_BHW3 = x_B3HW.permute(0, 2, 3, 1).contiguous()
    out = torch.empty_like(x_BHW3, dtype=torch.uint8)
    total = out.numel()
    kernels.levels[(triton.cdiv(total, BLOCK),)](x_BHW3, bias_3, out, total, BLOCK=BLOCK)
    return out


def _grid(theta_BN: Tensor) -> tuple[int, int]:
    rows, n = theta_BN.shape
    return triton.cdiv(n, BLOCK), rows
