"""The decoder as libraries' convolutions: where Triton's kernels do not run."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from un0.engine.folding import sub_pixel


class LibraryDecoder:
    """Upsampling and its convolution are one transposed convolution; maps lie as NHWC."""

    def __init__(self, parameters: list[Tensor], dtype: torch.dtype, ops: Any) -> None:
        """parameters: weight and bias of each convolution in order, float32 on the device.

        ops: for biases, LeakyReLU and levels (``un0.engine.fused.Ops``).
        """
        self._ops = ops
        weights, biases = parameters[::2], parameters[1::2]
        self.convs: list[tuple[Tensor, Tensor]] = []
        for index, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
            enlarges = index % 2 == 0 and index + 1 < len(weights)
            kept = (sub_pixel(weight) if enlarges else weight).to(dtype)
            kept = kept.contiguous(memory_format=torch.channels_last)
            self.convs.append((kept, bias.to(dtype, copy=True)))

    @property
    def tensors(self) -> list[Tensor]:
        """All that stays on the device."""
        return [tensor for conv in self.convs for tensor in conv]

    def __call__(self, features_BHWC: Tensor) -> Tensor:
        """Levels uint8 (B, H, W, 3)."""
        *blocks, (out, out_bias) = self.convs
        x = features_BHWC.permute(0, 3, 1, 2)
        for (enlarging, a), (weight, b) in zip(blocks[::2], blocks[1::2], strict=True):
            x = F.conv_transpose2d(x, enlarging, None, stride=2, padding=1)
            x = F.conv2d(self._ops.bias_and_leak(x, a), weight, padding=1)
            x = self._ops.bias_and_leak(x, b)
        levels: Tensor = self._ops.levels(F.conv2d(x, out, padding=1), out_bias)
        return levels
