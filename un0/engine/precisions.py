"""How the GPU engine keeps the numbers that it multiplies, in each precision.

"fp32" is float32 as two halves, so that tensor cores multiply it: x = high + low, both float16,
holds 22 bits, and x y is taken as high y_low + low y_high + high y_high. Sums are float32, and what
is dropped is below 2^-22 of a product. So a product of split numbers is one of float16 over three
times as many terms: one side is kept as [high | low] and read as high, low, high; the other is kept
as [low | high | high]. Small terms come first, because tensor cores cut sums off where float32
would round them. Numbers must be below 65504 and should not be below 2^-3 in the main, beneath
which low loses bits (float16 ends at 2^-24); scales see to it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from un0.engine.base import DTYPES, FP8_PRECISIONS, Precision

FP8 = torch.float8_e4m3fn
FP8_MAX, HALF_MAX = 448.0, 65504.0


@dataclass(frozen=True)
class Numbers:
    """One way to keep maps, weights, or sin and cos.

    split: as two halves. channels: maps have a multiple of so many (in each half), so that they are
    read 16 bytes at once, or a slice at a time. swing: what sin and cos are multiplied by, a power
    of two. largest: what a weight's largest is scaled to, None to leave weights as they are.
    usual_max: the power of two that a map's largest value is scaled to, likewise.
    """

    dtype: torch.dtype
    split: bool = False
    channels: int = 16
    swing: float = 1.0
    largest: float | None = None
    usual_max: float | None = None

    def padded(self, channels: int) -> int:
        """Channels as they are kept; those added are zero."""
        return -(-channels // self.channels) * self.channels

    def width(self, channels: int) -> int:
        """Numbers that are kept for so many channels of a map."""
        return self.padded(channels) * (2 if self.split else 1)

    def keep_map(self, x: Tensor) -> Tensor:
        """x (..., C) as it is kept (..., width), already scaled."""
        x = F.pad(x, [0, self.padded(x.shape[-1]) - x.shape[-1]])
        return torch.cat(halves(x), dim=-1) if self.split else x.to(self.dtype)

    def keep_weight(self, x: Tensor) -> Tensor:
        """The other side of a product, (..., C) as (..., 3 C) if split."""
        if not self.split:
            return x.to(self.dtype).contiguous()
        high, low = halves(x)
        return torch.cat([low, high, high], dim=-1).contiguous()


def coupling_numbers(precision: Precision) -> Numbers:
    """Of K, and of the sin and cos that it is multiplied by."""
    if precision in FP8_PRECISIONS:  # swings are large so that small ones keep their bits
        return Numbers(FP8, swing=256.0, largest=FP8_MAX)
    if precision == "fp32":
        return Numbers(torch.float16, split=True, largest=1024.0)
    return Numbers(DTYPES[precision])


def decoder_numbers(precision: Precision) -> Numbers:
    """Of maps and their weights.

    In fp8 7 to 14 times the usual maximum still fits. It costs no accuracy, as numbers lose bits
    only below 2**-11 of the largest. As halves 500 to 1,000 times does.
    """
    if precision == "fp8-full":
        return Numbers(FP8, swing=256.0, largest=FP8_MAX, usual_max=32.0)
    if precision == "fp32":
        return Numbers(torch.float16, split=True, channels=32, largest=256.0, usual_max=64.0)
    return Numbers(torch.bfloat16 if precision == "fp8" else DTYPES[precision])


def halves(x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low of float32, as float16. What is out of range saturates."""
    x = x.clamp(-HALF_MAX, HALF_MAX)
    high = x.to(torch.float16)
    return high, (x - high).to(torch.float16)


def joined(parts: Tensor, count: int) -> Tensor:
    """float32 of the first two of ``count`` halves along the last dimension."""
    high, low = parts.chunk(count, dim=-1)[:2]
    return high.float() + low.float()
