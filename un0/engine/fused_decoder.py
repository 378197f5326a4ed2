"""The decoder whose convolutions are kernels of our own: that of bf16, fp16 and both fp8.

A convolution's kernel adds up products in float32, multiplies by a factor of the output channel,
adds the bias, applies LeakyReLU, and rounds as the next one reads it: a map is written once and
read once. The last one, to three colours, goes on to tanh and levels. In fp8 (e4m3) weights have a
scale an output channel, maps one each: a power of two, found once at load on a few images, so that
an image never depends on its neighbours. All scales are in the factors and biases; the last map is
bf16, and so is the convolution to colours. Measured errors are in docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from un0.engine.folding import by_block, by_phase, sub_pixel

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0
FP8_SWING = 256.0  # sin and cos times this: a power of two, so that small ones keep their bits
# Where the power of two of a map's largest value is put: 7 to 14 times as much still fits. It costs
# no accuracy, as numbers lose bits only below 2**-11 of the largest.
USUAL_MAX = 32.0
CHANNELS = 16  # maps have a multiple of it, so that a pixel's channels are read 16 bytes at once

# x (B, H, W, C), weight (phases, taps, N, C), factor (N,), bias (N,), type of the new map
Convolve = Callable[[Tensor, Tensor, Tensor, Tensor, torch.dtype], Tensor]
# x (B, H, W, C), weight (taps, N, C) of ``by_block``, bias (3,); levels (B, H, W, 3)
Colours = Callable[[Tensor, Tensor, Tensor], Tensor]


class ConvolutionOps(Protocol):
    """``torch_ops``, or ``triton_ops`` where there is Triton."""

    @property
    def convolve(self) -> Convolve: ...
    @property
    def colours(self) -> Colours: ...


def padded(channels: int) -> int:
    """Channels as they are kept; those added are zero."""
    return -(-channels // CHANNELS) * CHANNELS


@dataclass(frozen=True)
class FusedConv:
    """One convolution: a phase of 3x3 taps, or the four of an enlarging one (``by_phase``).

    factor_N, bias_N: float32; what a sum of products is multiplied by and what is added, so that
    the result is in the units that the next convolution reads.
    """

    weight_PTNC: Tensor
    factor_N: Tensor
    bias_N: Tensor

    @staticmethod
    def of(weight: Tensor, bias: Tensor, enlarges: bool, dtype: torch.dtype) -> FusedConv:
        """Of a 3x3 kernel (C_out, C_in, 3, 3) and bias (C_out,) in float32, for a map as it is."""
        if enlarges:
            taps = by_phase(sub_pixel(weight))
        else:
            taps = weight.permute(2, 3, 0, 1).flatten(0, 1)[None]
        n, c = taps.shape[2:]
        taps = F.pad(taps, [0, padded(c) - c, 0, padded(n) - n])
        unit_N = torch.ones(padded(n), device=taps.device)
        if dtype == FP8:
            # Not zero, of a channel that is all zero.
            unit_N = taps.abs().amax((0, 1, 3)).clamp(min=1e-30) / FP8_MAX
        weight_PTNC = (taps / unit_N[:, None]).to(dtype).contiguous()
        return FusedConv(weight_PTNC, unit_N, F.pad(bias, [0, padded(n) - n]))


class FusedDecoder:
    """Levels of features (B, 4, 4, C): sin and cos, in fp8 times FP8_SWING.

    dtype: of weights and maps; FP8 wants ``find_scales`` before use.
    """

    def __init__(self, parameters: list[Tensor], dtype: torch.dtype, ops: ConvolutionOps) -> None:
        """parameters: weight and bias of each convolution in order, float32 on the device."""
        self._dtype, self._ops = dtype, ops
        self._last_dtype = torch.bfloat16 if dtype == FP8 else dtype
        *pairs, (out, out_bias) = zip(parameters[::2], parameters[1::2], strict=True)
        self.convs = [
            FusedConv.of(weight, bias, index % 2 == 0, dtype)
            for index, (weight, bias) in enumerate(pairs)
        ]
        taps_TNC = by_block(F.pad(out, [0, 0, 0, 0, 0, padded(out.shape[1]) - out.shape[1]]))
        self.colours = taps_TNC.to(self._last_dtype), out_bias.clone()

    @property
    def tensors(self) -> list[Tensor]:
        """All that stays on the device."""
        convs = ((conv.weight_PTNC, conv.factor_N, conv.bias_N) for conv in self.convs)
        return [tensor for conv in (*convs, self.colours) for tensor in conv]

    def find_scales(self, features_BHWC: Tensor, convolve: Convolve) -> None:
        """Choose the scale of every map by what it holds for these images. Once, before use.

        convolve: PyTorch's, so that no kernel is compiled for types that are needed only here.
        """
        x = _as_kept(features_BHWC)
        unscale: Tensor | float = 1 / FP8_SWING
        for conv in self.convs[:-1]:
            conv.factor_N.mul_(unscale)
            y = convolve(x, conv.weight_PTNC, conv.factor_N, conv.bias_N, torch.float32)
            scale = USUAL_MAX / _power_of_two(y.abs().amax().clamp(min=1e-12))
            conv.factor_N.mul_(scale)
            conv.bias_N.mul_(scale)
            x, unscale = (y * scale).to(FP8), 1 / scale
        self.convs[-1].factor_N.mul_(unscale)

    def last_map(self, features_BHWC: Tensor) -> Tensor:
        """(B, H, W, C), bf16 for fp8."""
        x = _as_kept(features_BHWC)
        for conv in self.convs:
            kind = self._last_dtype if conv is self.convs[-1] else self._dtype
            x = self._ops.convolve(x, conv.weight_PTNC, conv.factor_N, conv.bias_N, kind)
        return x

    def __call__(self, features_BHWC: Tensor) -> Tensor:
        """Levels uint8 (B, H, W, 3)."""
        return self._ops.colours(self.last_map(features_BHWC), *self.colours)


def _as_kept(x_BHWC: Tensor) -> Tensor:
    """With all channels; as bytes, since not every operation knows fp8."""
    more = (padded(x_BHWC.shape[-1]) - x_BHWC.shape[-1]) * x_BHWC.element_size()
    return F.pad(x_BHWC.view(torch.uint8), [0, more]).view(x_BHWC.dtype) if more else x_BHWC


def _power_of_two(x: Tensor) -> Tensor:
    """The one at or below a positive float32: its exponent bits, exact on every device."""
    return (x.view(torch.int32) & 0x7F800000).view(torch.float32)
