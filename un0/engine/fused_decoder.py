"""The decoder whose convolutions are kernels of our own, wherever Triton runs.

A convolution's kernel adds up products in float32, multiplies by a factor of the output channel,
adds the bias, applies LeakyReLU, and rounds as the next one reads it: a map is written once and
read once. The last one, to three colours, goes on to tanh and levels.

In fp8 (e4m3) and in fp32 (as halves) weights have a scale an output channel, maps one each: a
power of two, found once at load on a few images, so that an image never depends on its neighbours.
All scales are in the factors and biases. fp8's last map is bf16, as is its convolution to colours.
Measured errors are in docs/gpu.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from un0.config import SEED_SIZE
from un0.engine.folding import by_block, by_phase, sub_pixel
from un0.engine.precisions import FP8, Numbers

# x (B, H, W, C), weight (phases, taps, N, C), factor (N,), bias (N,), out: the new map
Convolve = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], None]
# x (B, H, W, C), weight (taps, N, C) of ``by_block``, factor (3,), bias (3,); levels (B, H, W, 3)
Colours = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


class ConvolutionOps(Protocol):
    """``torch_ops``, or ``triton_ops`` where there is Triton."""

    @property
    def convolve(self) -> Convolve: ...
    @property
    def colours(self) -> Colours: ...


@dataclass(frozen=True)
class FusedConv:
    """One convolution, to N channels: a phase of 3x3 taps, or the four of an enlarging one
    (``by_phase``), or, to colours, blocks of pixels in a phase of their own (``by_block``).

    factor_N, bias_N: float32; what a sum of products is multiplied by and what is added, so that
    the result is in the units that the next convolution reads.
    """

    weight_PTNC: Tensor
    factor_N: Tensor
    bias_N: Tensor

    @staticmethod
    def of(taps_PTNC: Tensor, bias_N: Tensor, numbers: Numbers) -> FusedConv:
        """Of float32 taps and biases as they are, for a map as it is."""
        more = numbers.padded(taps_PTNC.shape[-1]) - taps_PTNC.shape[-1]
        taps_PTNC = F.pad(taps_PTNC, [0, more])
        unit_N = torch.ones(taps_PTNC.shape[2], device=taps_PTNC.device)
        if numbers.largest is not None:
            # Not zero, of a channel that is all zero.
            unit_N = taps_PTNC.abs().amax((0, 1, 3)).clamp(min=1e-30) / numbers.largest
        scaled = taps_PTNC / unit_N[:, None]
        return FusedConv(numbers.keep_weight(scaled), unit_N, bias_N.clone())


class FusedDecoder:
    """Levels of features (B, 4, 4, width): sin and cos times ``numbers.swing``.

    Numbers with a usual maximum want ``find_scales`` before use.
    """

    def __init__(self, parameters: list[Tensor], numbers: Numbers, ops: ConvolutionOps) -> None:
        """parameters: weight and bias of each convolution in order, float32 on the device."""
        self.numbers, self._ops = numbers, ops
        self._last = Numbers(torch.bfloat16) if numbers.dtype == FP8 else numbers
        *pairs, (out, out_bias) = zip(parameters[::2], parameters[1::2], strict=True)
        self.convs = [
            FusedConv.of(*_whole_channels(weight, bias, index % 2 == 0, numbers), numbers)
            for index, (weight, bias) in enumerate(pairs)
        ]
        colours = FusedConv.of(by_block(out)[None], out_bias, self._last)
        # A unit for each colour, not for each output of a block.
        unit_3 = colours.factor_N.unflatten(0, (-1, 3))[0].clone()
        self.colours = FusedConv(colours.weight_PTNC, unit_3, colours.bias_N)

    @property
    def tensors(self) -> list[Tensor]:
        """All that stays on the device."""
        convs = [*self.convs, self.colours]
        return [t for conv in convs for t in (conv.weight_PTNC, conv.factor_N, conv.bias_N)]

    def find_scales(self, features_BHWC: Tensor) -> None:
        """Choose the scale of every map by what it holds for these images. Once, before use."""
        numbers = self.numbers
        assert numbers.usual_max is not None
        x = features_BHWC
        unscale: Tensor | float = 1 / numbers.swing
        for conv, (shape, kept) in zip(self.convs, self._maps(len(x)), strict=True):
            conv.factor_N.mul_(unscale)
            if kept is not numbers:  # the last map of fp8 has no scale
                return
            y = x.new_empty(*shape[:3], len(conv.factor_N), dtype=torch.float32)
            self._ops.convolve(x, conv.weight_PTNC, conv.factor_N, conv.bias_N, y)
            scale = numbers.usual_max / _power_of_two(y.abs().amax().clamp(min=1e-12))
            conv.factor_N.mul_(scale)
            conv.bias_N.mul_(scale)
            x, unscale = numbers.keep_map(y * scale), 1 / scale
        self.colours.factor_N.mul_(unscale)

    def last_map(self, features_BHWC: Tensor) -> Tensor:
        """(B, H, W, width). Maps take turns in two buffers, each as large as its largest."""
        x = features_BHWC
        maps = self._maps(len(x))
        sizes = [math.prod(shape) * kept.dtype.itemsize for shape, kept in maps]
        buffers = [x.new_empty(max(sizes[turn::2]), dtype=torch.uint8) for turn in (0, 1)]
        for index, conv in enumerate(self.convs):
            shape, kept = maps[index]
            y = buffers[index % 2][: sizes[index]].view(kept.dtype).view(shape)
            self._ops.convolve(x, conv.weight_PTNC, conv.factor_N, conv.bias_N, y)
            x = y
        return x

    def _maps(self, rows: int) -> list[tuple[tuple[int, int, int, int], Numbers]]:
        """Shape and kind of every convolution's map; every other one is enlarged."""
        kinds = [self.numbers] * (len(self.convs) - 1) + [self._last]
        sides = [SEED_SIZE * 2 ** (index // 2 + 1) for index in range(len(self.convs))]
        return [
            ((rows, side, side, kept.width(len(conv.factor_N))), kept)
            for conv, side, kept in zip(self.convs, sides, kinds, strict=True)
        ]

    def __call__(self, features_BHWC: Tensor) -> Tensor:
        """Levels uint8 (B, H, W, 3)."""
        last, conv = self.last_map(features_BHWC), self.colours
        return self._ops.colours(last, conv.weight_PTNC[0], conv.factor_N, conv.bias_N)


def _whole_channels(
    weight_OI33: Tensor, bias_O: Tensor, enlarges: bool, numbers: Numbers
) -> tuple[Tensor, Tensor]:
    """Taps (phases, taps, N, C) and biases (N,) of a 3x3 kernel, with channels as they are kept."""
    if enlarges:
        taps = by_phase(sub_pixel(weight_OI33))
    else:
        taps = weight_OI33.permute(2, 3, 0, 1).flatten(0, 1)[None]
    more = numbers.padded(len(bias_O)) - len(bias_O)
    return F.pad(taps, [0, 0, 0, more]), F.pad(bias_O, [0, more])


def _power_of_two(x: Tensor) -> Tensor:
    """The one at or below a positive float32: its exponent bits, exact on every device."""
    return (x.view(torch.int32) & 0x7F800000).view(torch.float32)
