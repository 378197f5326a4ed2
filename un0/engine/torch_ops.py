"""The small steps of the GPU engine in PyTorch's operations. Pure; run on any device.

``un0.engine.triton_ops`` has the same functions as one kernel each, and is held to these.
Shapes: B images, N main and M conditioning oscillators, S steps, C channels. Oscillators are in
pixel order (``un0.engine.fused``); all phases are float32 and radians.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from un0.config import SEED_SIZE
from un0.engine.base import to_uint8
from un0.engine.folding import from_block, from_phases
from un0.engine.fused_decoder import FP8, FP8_MAX
from un0.noise import MASK, PHASE_STEP, philox_torch

PIXELS = SEED_SIZE**2
name = "torch"


def initial_phases(seed: Tensor, indices_B: Tensor, n: int, m: int) -> tuple[Tensor, Tensor]:
    """Main (B, N) and conditioning (B, M) phases: those of ``un0.noise``, the main in pixel order.

    seed: int64 with one element, on the device, so that a recorded graph serves every seed.
    """
    blocks = torch.arange(-(-(n + m) // 4), device=indices_B.device)[None, :]
    low, high = (indices_B & MASK)[:, None], (indices_B >> 32 & MASK)[:, None]
    counter = torch.broadcast_tensors(blocks, torch.zeros_like(blocks), low, high)
    words = philox_torch(counter, (seed & MASK, seed >> 32 & MASK))
    whole = (torch.stack(words, dim=-1).flatten(1) >> 8) - 2**23
    phases = whole.to(torch.float32) * PHASE_STEP
    return pixel_order(phases[:, :n]), phases[:, n : n + m].contiguous()


def pixel_order(x_BN: Tensor) -> Tensor:
    """Oscillators from (channel, pixel) order, in which models state them, to (pixel, channel)."""
    by_channel: Tensor = x_BN.unflatten(1, (-1, PIXELS))
    return by_channel.transpose(1, 2).flatten(1).contiguous()


def conditioning_waves(phi_BM: Tensor, omega_M: Tensor, K_MM: Tensor, num_steps: int) -> Tensor:
    """[sin phi, cos phi] (S, B, 2, M) that drive each step, by Euler's rule. Rates are a step's."""
    waves = []
    for _ in range(num_steps):
        wave = torch.stack([torch.sin(phi_BM), torch.cos(phi_BM)], dim=1)
        waves.append(wave)
        sin, cos = wave.unbind(1)
        pull_sin, pull_cos = (wave @ K_MM.T).unbind(1)
        phi_BM = phi_BM + omega_M + cos * pull_sin - sin * pull_cos
    return torch.stack(waves)


def encode(theta_BN: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    """[sin theta, cos theta] * scale, (B, 2, N) in ``dtype``: what the product with K takes."""
    return torch.stack([torch.sin(theta_BN), torch.cos(theta_BN)], dim=1).mul_(scale).to(dtype)


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
    """One Euler step: the new phases (B, N), and ``encode`` of them for the next product.

    pull: the product of the old ``encode`` with K. Classes number C here; their drive is read in
    place by class, never copied image by image where a kernel can do so.
    """
    drive_BMN = drive_CMN[class_ids_B].float()
    pull_sin, pull_cos = (pull_B2N.float() + wave_B2M @ drive_BMN).unbind(1)
    change = omega_N + torch.cos(theta_BN) * pull_sin - torch.sin(theta_BN) * pull_cos
    theta_BN = theta_BN + change
    return theta_BN, encode(theta_BN, dtype, scale)


def read_out(theta_BN: Tensor, reference_B: Tensor, dtype: torch.dtype, scale: float) -> Tensor:
    """Features (B, 4, 4, C): sin, then cos, of the phases relative to the reference, * scale."""
    theta = (theta_BN - reference_B[:, None]).unflatten(1, (SEED_SIZE, SEED_SIZE, -1))
    return torch.cat([torch.sin(theta), torch.cos(theta)], dim=-1).mul_(scale).to(dtype)


def bias_and_leak(x_BCHW: Tensor, bias_C: Tensor) -> Tensor:
    """LeakyReLU 0.2 of x + bias; may overwrite x."""
    return F.leaky_relu_(x_BCHW.add_(bias_C[:, None, None]), 0.2)


def convolve(
    x_BHWC: Tensor, weight_PTNC: Tensor, factor_N: Tensor, bias_N: Tensor, dtype: torch.dtype
) -> Tensor:
    """LeakyReLU 0.2 of factor * conv(x) + bias, (B, H, W, N) or, of four phases, (B, 2H, 2W, N).

    Operands of ``un0.engine.fused_decoder.FusedConv``; sums are float32. A result in fp8 saturates.
    """
    x_BCHW, taps = x_BHWC.float().permute(0, 3, 1, 2), weight_PTNC.float()
    if len(taps) == 4:
        y = F.conv_transpose2d(x_BCHW, from_phases(taps), stride=2, padding=1)
    else:
        y = F.conv2d(x_BCHW, taps[0].permute(1, 2, 0).unflatten(2, (3, 3)), padding=1)
    y = F.leaky_relu_(y.permute(0, 2, 3, 1) * factor_N + bias_N, 0.2)
    return (y.clamp_(-FP8_MAX, FP8_MAX) if dtype == FP8 else y).to(dtype).contiguous()


def colours(x_BHWC: Tensor, weight_TNC: Tensor, bias_3: Tensor) -> Tensor:
    """Levels uint8 (B, H, W, 3) of tanh(conv(x) + bias). weight: of ``folding.by_block``."""
    weight = from_block(weight_TNC).float()
    return levels(F.conv2d(x_BHWC.float().permute(0, 3, 1, 2), weight, padding=1), bias_3)


def levels(x_B3HW: Tensor, bias_3: Tensor) -> Tensor:
    """Levels uint8 (B, H, W, 3) of tanh(x + bias)."""
    x = x_B3HW.float() + bias_3.float()[:, None, None]
    return to_uint8(torch.tanh(x)).permute(0, 2, 3, 1).contiguous()
