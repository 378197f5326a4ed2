"""From settled phases to pixels: readout and resize-conv decoder, written to be read."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from un0.config import SEED_SIZE, Encoding, ModelConfig, Relativization


def read_out(theta_BN: Tensor, relativization: Relativization, encoding: Encoding) -> Tensor:
    """Features (B, F) of the main phases: made relative, then encoded."""
    if relativization == "mean_relative":
        theta_BN = theta_BN - theta_BN.mean(dim=1, keepdim=True)
    elif relativization == "ref_oscillator":
        theta_BN = theta_BN - theta_BN[:, :1]
    if encoding == "raw":
        return theta_BN
    if encoding == "sin":
        return torch.sin(theta_BN)
    return torch.cat([torch.sin(theta_BN), torch.cos(theta_BN)], dim=1)


class Block(nn.Module):
    """Nearest upsample x2, then two 3x3 convolutions, each with LeakyReLU 0.2."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.b = nn.Conv2d(out_channels, out_channels, 3, padding=1)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        x = F.interpolate(x_BCHW, scale_factor=2, mode="nearest")
        return F.leaky_relu(self.b(F.leaky_relu(self.a(x), 0.2)), 0.2)


class Decoder(nn.Module):
    """Features (B, F) to images (B, 3, H, W) in [-1, 1]."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        channels = config.channels
        self.blocks = nn.ModuleList(
            Block(c_in, c_out) for c_in, c_out in itertools.pairwise(channels)
        )
        self.out = nn.Conv2d(channels[-1], 3, 3, padding=1)

    def forward(self, features_BF: Tensor) -> Tensor:
        x = features_BF.reshape(features_BF.shape[0], -1, SEED_SIZE, SEED_SIZE)
        for block in self.blocks:
            x = block(x)
        return torch.tanh(self.out(x))
