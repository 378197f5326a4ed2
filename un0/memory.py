"""How much device memory a model takes, and how many images at once fit. Pure but for one question.

The model of memory is the GPU engine's (``un0.engine.fused``): weights as they stay on the device,
and an image's activations where they are most. Tests hold it to the bytes that engine allocates.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch

from un0.config import SEED_SIZE, ModelConfig
from un0.engine import default_tile
from un0.engine.base import Precision
from un0.engine.folding import BLOCK_SIDE
from un0.engine.fused_decoder import padded

ITEM_BYTES: dict[str, int] = {"fp32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp8-full": 1}
# Libraries' workspaces (cuBLAS takes 32 MiB a stream on Hopper) and what fragments.
WORKSPACE_BYTES = 256 * 2**20

_smaller: dict[tuple[ModelConfig, str, Precision], int] = {}  # tiles found by running out of memory


@dataclass(frozen=True)
class Plan:
    """Images per engine call, and the memory that they need.

    tile: the one every device of this kind uses (``default_tile``) unless that does not fit; a
        smaller one may change an image's last bits, see docs/adr/0002-tiles.md.
    free_bytes: what the device has, None where the tile does not depend on it (a CPU).
    """

    tile: int
    default_tile: int
    weights_bytes: int
    image_bytes: int
    free_bytes: int | None

    @property
    def needed_bytes(self) -> int:
        return needed_bytes(self.weights_bytes, self.image_bytes, self.tile)

    @property
    def fits(self) -> bool:
        return self.free_bytes is None or self.needed_bytes <= self.free_bytes

    @property
    def usual_bytes(self) -> bool:
        """Whether images are bit for bit those of other devices of this kind."""
        return self.tile == self.default_tile


def plan(
    config: ModelConfig,
    device: torch.device,
    precision: Precision = "fp32",
    *,
    free_bytes: int | None = None,
) -> Plan:
    """The tile for a device: the usual one, halved until it fits, or what was found by trying.

    free_bytes: before the weights are loaded; None asks the device.
    """
    usual = default_tile(config, device)
    weights, image = weights_bytes(config, precision), image_bytes(config, precision)
    if device.type != "cuda" and free_bytes is None:
        return Plan(usual, usual, weights, image, None)
    if free_bytes is None:
        free_bytes = torch.cuda.mem_get_info(device)[0]
    tile = min(usual, _smaller.get((config, str(device), precision), usual))
    while tile > 1 and needed_bytes(weights, image, tile) > free_bytes:
        tile //= 2
    return Plan(tile, usual, weights, image, free_bytes)


def remember_tile(
    config: ModelConfig, device: torch.device, precision: Precision, tile: int
) -> None:
    """Note that more did not fit: plans of this process begin here from now on."""
    _smaller[config, str(device), precision] = tile


def needed_bytes(weights: int, image: int, tile: int) -> int:
    return weights + image * tile + WORKSPACE_BYTES


def weights_bytes(config: ModelConfig, precision: Precision) -> int:
    """What a prepared model keeps on the device. Enlarging kernels have 4x4 taps for their 3x3,
    and that of colours makes blocks of pixels."""
    item = ITEM_BYTES.get(precision, 4)
    rest = max(item, 2)  # fp8 is for K, and for the decoder if at all
    n, m = config.n, config.n_cond
    total = item * n * n + rest * config.num_classes * m * n + 4 * (n + m + m * m)
    channels = _channels(config, precision)
    # Of a convolution's weight, and of an output channel: its bias, or a factor and a bias in fp32.
    weight, channel = (4, 4) if precision == "fp32" else (_map_item(precision), 8)
    for c_in, c_out in pairwise(channels):
        total += c_out * (weight * (16 * c_in + 9 * c_out) + 2 * channel)
    taps = 9 if precision == "fp32" else (BLOCK_SIDE * (BLOCK_SIDE + 2)) ** 2
    return total + 3 * (rest * taps * channels[-1] + 4)


def _channels(config: ModelConfig, precision: Precision) -> list[int]:
    return [c if precision == "fp32" else padded(c) for c in config.channels]


def _map_item(precision: Precision) -> int:
    """Bytes of a number in all maps of the decoder but the last."""
    return 1 if precision == "fp8-full" else max(ITEM_BYTES.get(precision, 4), 2)


def image_bytes(config: ModelConfig, precision: Precision) -> int:
    """Activations of one image at their peak: while integrating, or in one of the convolutions."""
    item = ITEM_BYTES.get(precision, 4)
    rest, inner = max(item, 2), _map_item(precision)
    n, m = config.n, config.n_cond
    phases = 4 * (n + m)
    waves = 8 * m * config.num_steps
    integrating = phases + waves + 2 * 4 * n + 2 * n * (rest + 2 * item)
    sides = [SEED_SIZE * 2**block for block in range(config.num_blocks + 1)]
    values = [side**2 * c for side, c in zip(sides, _channels(config, precision), strict=True)]
    widest = max(inner * (max(small, large) + large) for small, large in pairwise(values))
    decoding = phases + 4 * n + max(widest, (inner + rest) * values[-1])
    decoding += inner * values[0]  # the first map stays until the end
    levels = 2 * 3 * sides[-1] ** 2  # two tiles on their way to the host
    return int(max(integrating, decoding) + levels)
