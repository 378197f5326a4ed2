"""The small steps of the GPU engine in Triton: ``un0.engine.torch_ops``, one kernel each.

Each reads its operands once and writes its result once; between products nothing else touches
memory. The drive of a class is read where it lies, so images of a class share its rows in the
cache. Without a GPU, Triton's interpreter (``TRITON_INTERPRET=1``) runs them on CPU tensors.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from un0.config import SEED_SIZE
from un0.engine import torch_ops, triton_conv
from un0.engine import triton_kernels as kernels
from un0.engine.folding import BLOCK_SIDE

try:
    from triton.tools.tensor_descriptor import TensorDescriptor
except ImportError:  # before Triton 3.4
    TensorDescriptor = None

name = "triton"

BLOCK = 1024
MAX_CONDITIONING = 64  # a larger K_cond does not fit one program's registers
BOX_BYTES = 128  # of a pixel, at least: below, pixels read one by one were as fast or faster


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
    rest = (factor_N, bias_N, out, b * h * w, h, w, c, n)
    item = x_BHWC.element_size()
    boxes = box_blocks(n, item)
    box = box_of(boxes.m, h, w) if item <= 2 and c * item >= BOX_BYTES else None
    if box is not None and has_boxes(x_BHWC.device):
        kernel, blocks = triton_conv.convolve_boxes, boxes
        x = TensorDescriptor.from_tensor(x_BHWC, [*box, blocks.k])
        weight = TensorDescriptor.from_tensor(weight_PTNC.flatten(0, 1), [1, blocks.n, blocks.k])
        sizes = dict(zip(("IMAGES", "ROWS", "COLUMNS"), box, strict=True))
    else:
        kernel, blocks = triton_conv.convolve, conv_blocks(c, n, item)
        x, weight, sizes = x_BHWC, weight_PTNC, {"BLOCK_M": blocks.m}
    grid = (triton.cdiv(b * h * w, blocks.m) * phases * triton.cdiv(n, blocks.n),)
    kernel[grid](
        x, weight, *rest, TAPS=side, **sizes, BLOCK_N=blocks.n, BLOCK_K=blocks.k,
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip
    return out


class Blocks(NamedTuple):
    """Pixels, new channels and old channels that a program works on at once; how it does so.

    By the channels alone, so that no timing and no number of images changes the order in which
    sums are added up. Which are fastest was measured on an H100 (docs/gpu.md).
    """

    m: int
    n: int
    k: int
    warps: int
    stages: int


def conv_blocks(c: int, n: int, item: int) -> Blocks:
    """For pixels read one by one, c channels of ``item`` bytes to n, with few rows to spare.

    Three stages are 96 KiB of shared memory at most: what an Ada GPU has.
    """
    block_n = min(128, max(32, triton.next_power_of_2(n)))
    most = 128 // item
    if c <= most // 4:
        block_k = max(16, most // 4)
    else:
        block_k = min(most, most // 2, key=lambda k: triton.cdiv(c, k) * k)
    return Blocks(128, block_n, block_k, 8 if block_n == 128 else 4, 3)


def box_blocks(n: int, item: int) -> Blocks:
    """For boxes, to n channels: rows of 128 bytes are what the copy engine likes best."""
    block_k = 128 // item
    if n <= 64:
        return Blocks(256, max(32, triton.next_power_of_2(n)), block_k, 8, 3)
    return Blocks(128, 128, block_k, 4, 4) if item == 1 else Blocks(256, 128, block_k, 8, 3)


def box_of(pixels: int, h: int, w: int) -> tuple[int, int, int] | None:
    """Images, rows and columns of a box of so many pixels that follow one another in maps h x w;
    None where there is none."""
    if pixels % w or h & (h - 1) or pixels < w:
        return None
    rows = min(h, pixels // w)
    return pixels // (rows * w), rows, w


@functools.cache
def has_boxes(device: torch.device) -> bool:
    """Whether there is a copy engine, and a Triton that speaks to it; Blackwell was not tried."""
    if TensorDescriptor is None:
        return False
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] == 9


def colours(x_BHWC: Tensor, weight_TNC: Tensor, bias_3: Tensor) -> Tensor:
    b, h, w, c = x_BHWC.shape
    out = x_BHWC.new_empty(b, h, w, 3, dtype=torch.uint8)
    blocks = b * h * w // BLOCK_SIDE**2
    block_k = min(128 // x_BHWC.element_size(), triton.next_power_of_2(c))
    triton_conv.colours[(triton.cdiv(blocks, 128),)](
        x_BHWC, weight_TNC, bias_3, out, blocks, h, w, c,
        SIDE=BLOCK_SIDE, BLOCK_M=128, BLOCK_N=64, BLOCK_K=block_k, num_warps=8, num_stages=4,
    )  # fmt: skip
    return out


def levels(x_B3HW: Tensor, bias_3: Tensor) -> Tensor:
    x_BHW3 = x_B3HW.permute(0, 2, 3, 1).contiguous()
    out = torch.empty_like(x_BHW3, dtype=torch.uint8)
    total = out.numel()
    kernels.levels[(triton.cdiv(total, BLOCK),)](x_BHW3, bias_3, out, total, BLOCK=BLOCK)
    return out


def _grid(theta_BN: Tensor) -> tuple[int, int]:
    rows, n = theta_BN.shape
    return triton.cdiv(n, BLOCK), rows
