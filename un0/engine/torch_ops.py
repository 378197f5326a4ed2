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
from un0.engine.precisions import FP8, FP8_MAX, Numbers, halves, joined
from un0.noise import MASK, PHASE_STEP, philox_torch

PIXELS = SEED_SIZE**2


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


def encode(theta_BN: Tensor, numbers: Numbers) -> Tensor:
    """[sin theta, cos theta] * swing, (B, 2, N) or, split, (B, 2, 3 N) as high, low, high: what K
    is multiplied by."""
    waves = torch.stack([torch.sin(theta_BN), torch.cos(theta_BN)], dim=1).mul_(numbers.swing)
    if not numbers.split:
        return waves.to(numbers.dtype)
    high, low = halves(waves)
    return torch.cat([high, low, high], dim=-1)


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
    """One Euler step: the new phases (B, N), and ``encode`` of them for the next product.

    pull: the product of the old ``encode`` with K, in so large a unit. Classes number C here; their
    drive is read in place by class, never copied image by image where a kernel can do so.
    """
    drive_BMN = drive_CMN[class_ids_B].float()
    pull_sin, pull_cos = (pull_B2N.float() * pull_unit + wave_B2M @ drive_BMN).unbind(1)
    change = omega_N + torch.cos(theta_BN) * pull_sin - torch.sin(theta_BN) * pull_cos
    theta_BN = theta_BN + change
    return theta_BN, encode(theta_BN, numbers)


def read_out(theta_BN: Tensor, reference_B: Tensor, numbers: Numbers) -> Tensor:
    """Features (B, 4, 4, width): sin, then cos, of the phases relative to the reference."""
    theta = (theta_BN - reference_B[:, None]).unflatten(1, (SEED_SIZE, SEED_SIZE, -1))
    waves = torch.cat([torch.sin(theta), torch.cos(theta)], dim=-1)
    return numbers.keep_map(waves.mul_(numbers.swing))


def bias_and_leak(x_BCHW: Tensor, bias_C: Tensor) -> Tensor:
    """LeakyReLU 0.2 of x + bias; may overwrite x."""
    return F.leaky_relu_(x_BCHW.add_(bias_C[:, None, None]), 0.2)


def convolve(
    x_BHWC: Tensor, weight_PTNC: Tensor, factor_N: Tensor, bias_N: Tensor, out: Tensor
) -> None:
    """out := LeakyReLU 0.2 of factor * conv(x) + bias, (B, H, W, N) or, of four phases, (B, 2H, 2W,
    N). Sums are float32; an fp8 result saturates.

    Operands of ``un0.engine.fused_decoder.FusedConv``. x with two parts for the weight's three is
    split (``un0.engine.precisions``), and so is out if it is float16.
    """
    split = is_split(x_BHWC, weight_PTNC)
    x = joined(x_BHWC, 2) if split else x_BHWC.float()
    taps = joined(weight_PTNC, 3) if split else weight_PTNC.float()
    x_BCHW = x.permute(0, 3, 1, 2)
    if len(taps) == 4:
        y = F.conv_transpose2d(x_BCHW, from_phases(taps), stride=2, padding=1)
    else:
        y = F.conv2d(x_BCHW, taps[0].permute(1, 2, 0).unflatten(2, (3, 3)), padding=1)
    y = F.leaky_relu_(y.permute(0, 2, 3, 1) * factor_N + bias_N, 0.2)
    if out.dtype == FP8:
        y = y.clamp_(-FP8_MAX, FP8_MAX)
    out.copy_(torch.cat(halves(y), dim=-1) if split and out.dtype == torch.float16 else y)


def is_split(x_BHWC: Tensor, weight: Tensor) -> bool:
    """Whether numbers are kept as halves."""
    return 3 * x_BHWC.shape[-1] == 2 * weight.shape[-1]


def colours(x_BHWC: Tensor, weight_TNC: Tensor, factor_3: Tensor, bias_3: Tensor) -> Tensor:
    """Levels uint8 (B, H, W, 3) of tanh(factor * conv(x) + bias). weight: of ``by_block``."""
    split = is_split(x_BHWC, weight_TNC)
    x = joined(x_BHWC, 2) if split else x_BHWC.float()
    weight = from_block(joined(weight_TNC, 3) if split else weight_TNC.float())
    y = F.conv2d(x.permute(0, 3, 1, 2), weight, padding=1)
    return levels(y * factor_3[:, None, None], bias_3)


def levels(x_B3HW: Tensor, bias_3: Tensor) -> Tensor:
    """Levels uint8 (B, H, W, 3) of tanh(x + bias)."""
    x = x_B3HW.float() + bias_3.float()[:, None, None]
    return to_uint8(torch.tanh(x)).permute(0, 2, 3, 1).contiguous()
