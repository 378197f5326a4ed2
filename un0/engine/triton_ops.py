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
from un0.engine.precisions import Numbers

if tuple(int(part) for part in triton.__version__.split(".")[:2]) >= (3, 6):
    from triton.tools.tensor_descriptor import TensorDescriptor
else:  # older ones were not tried
    TensorDescriptor = None

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


def encode(theta_BN: Tensor, numbers: Numbers) -> Tensor:
    rows, n = theta_BN.shape
    parts = 3 if numbers.split else 1
    out = theta_BN.new_empty(rows, 2, parts * n, dtype=numbers.dtype)
    kernels.swing[_grid(theta_BN)](
        theta_BN, theta_BN.new_zeros(rows), out, numbers.swing, n, n, 2 * parts * n, parts * n, n,
        PARTS=parts, BLOCK=BLOCK,
    )  # fmt: skip
    return out


def advance(
    theta_BN: Tensor,
    pull_B2N: Tensor,
    pull_unit: float,
    omega_N: Tensor,
    drive_CMN: Tensor,
    class_ids_B: Tensor,
    wave_B2M: Tensor,
    numbers: Numbers,
) -> tuple[Tensor, Tensor]:
    rows, n = theta_BN.shape
    parts = 3 if numbers.split else 1
    new_theta_BN = torch.empty_like(theta_BN)
    swings = theta_BN.new_empty(rows, 2, parts * n, dtype=numbers.dtype)
    kernels.advance[_grid(theta_BN)](
        theta_BN, pull_B2N, pull_unit, omega_N, drive_CMN, class_ids_B, wave_B2M, new_theta_BN,
        swings, numbers.swing, n, drive_CMN.shape[1], PARTS=parts, BLOCK=BLOCK,
    )  # fmt: skip
    return new_theta_BN, swings


def read_out(theta_BN: Tensor, reference_B: Tensor, numbers: Numbers) -> Tensor:
    rows, n = theta_BN.shape
    channels = n // SEED_SIZE**2
    width = numbers.width(2 * channels)
    out = theta_BN.new_empty(rows, SEED_SIZE, SEED_SIZE, width, dtype=numbers.dtype)
    if numbers.padded(2 * channels) > 2 * channels:
        out.zero_()
    kernels.swing[_grid(theta_BN)](
        theta_BN, reference_B, out, numbers.swing, n, channels, width, channels,
        numbers.padded(2 * channels), PARTS=2 if numbers.split else 1, BLOCK=BLOCK,
    )  # fmt: skip
    return out


def bias_and_leak(x_BCHW: Tensor, bias_C: Tensor) -> Tensor:
    x_BCHW = x_BCHW.contiguous(memory_format=torch.channels_last)
    total = x_BCHW.numel()
    kernels.bias_and_leak[(triton.cdiv(total, BLOCK),)](
        x_BCHW, bias_C, total, len(bias_C), BLOCK=BLOCK
    )
    return x_BCHW


def convolve(
    x_BHWC: Tensor, weight_PTNC: Tensor, factor_N: Tensor, bias_N: Tensor, out: Tensor
) -> None:
    b, h, w, width = x_BHWC.shape
    phases, n = len(weight_PTNC), weight_PTNC.shape[2]
    split = torch_ops.is_split(x_BHWC, weight_PTNC)
    c, item = width // 2 if split else width, x_BHWC.element_size()
    blocks = box_blocks(c, n, item, split)
    box = box_of(blocks.m, h, w) if item <= 2 and c * item >= BOX_BYTES else None
    kernel, x, weight, sizes = triton_conv.convolve, x_BHWC, weight_PTNC, {}
    if box is not None and has_boxes(x_BHWC.device):
        kernel = triton_conv.convolve_boxes
        x = TensorDescriptor.from_tensor(x_BHWC, [*box, blocks.k])
        weight = TensorDescriptor.from_tensor(weight_PTNC.flatten(0, 1), [1, blocks.n, blocks.k])
        sizes = dict(zip(("IMAGES", "ROWS", "COLUMNS"), box, strict=True))
    else:
        blocks = conv_blocks(c, n, item)
        sizes = {"BLOCK_M": blocks.m}
    grid = (triton.cdiv(b * h * w, blocks.m) * phases * triton.cdiv(n, blocks.n),)
    kernel[grid](
        x, weight, factor_N, bias_N, out, b * h * w, h, w, c, n, SPLIT=split,
        TAPS=2 if phases == 4 else 3, **sizes, BLOCK_N=blocks.n, BLOCK_K=blocks.k,
        num_warps=blocks.warps, num_stages=blocks.stages,
    )  # fmt: skip


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


def box_blocks(c: int, n: int, item: int, split: bool) -> Blocks:
    """For boxes: rows of 128 bytes are what the copy engine likes best; of halves a slice must not
    reach into the next."""
    block_k = 64 // item if split and c * item % 128 else 128 // item
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
    """Whether there is Hopper's copy engine, and a Triton that speaks to it; Blackwell was not
    tried."""
    if TensorDescriptor is None or torch.version.hip is not None:
        return False
    return device.type != "cuda" or torch.cuda.get_device_capability(device)[0] == 9


def colours(x_BHWC: Tensor, weight_TNC: Tensor, factor_3: Tensor, bias_3: Tensor) -> Tensor:
    b, h, w, width = x_BHWC.shape
    split = torch_ops.is_split(x_BHWC, weight_TNC)
    c, item = width // 2 if split else width, x_BHWC.element_size()
    out = x_BHWC.new_empty(b, h, w, 3, dtype=torch.uint8)
    blocks = b * h * w // BLOCK_SIDE**2
    triton_conv.colours[(triton.cdiv(blocks, 128),)](
        x_BHWC, weight_TNC, factor_3, bias_3, out, blocks, h, w, c, SPLIT=split, SIDE=BLOCK_SIDE,
        BLOCK_M=128, BLOCK_N=64, BLOCK_K=conv_blocks(c, 64, item).k, num_warps=8, num_stages=4,
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
