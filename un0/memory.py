"""How much device memory a model takes, and how many images at once fit. Pure but for one question.

The model of memory is the GPU engine's (``un0.engine.fused``): weights as they stay on the device,
and an image's activations where they are most. Tests hold it to the bytes that engine allocates.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import torch

from un0.config import SEED_SIZE, ModelConfig
from un0.engine import default_tile
from un0.engine.base import DTYPES, FP8_PRECISIONS, Precision
from un0.engine.folding import BLOCK_SIDE
from un0.engine.precisions import FP8, Numbers, coupling_numbers, decoder_numbers

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
    loading_bytes: int
    image_bytes: int
    free_bytes: int | None

    @property
    def needed_bytes(self) -> int:
        """At most: while loading, or while generating."""
        beside = max(self.loading_bytes, self.image_bytes * self.tile)
        return self.weights_bytes + beside + WORKSPACE_BYTES

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
    if device.type == "cuda" and free_bytes is None:
        free_bytes = torch.cuda.mem_get_info(device)[0]
    usual = default_tile(config, device)
    found = Plan(
        tile=min(usual, _smaller.get((config, str(device), precision), usual)),
        default_tile=usual,
        weights_bytes=weights_bytes(config, precision),
        loading_bytes=loading_bytes(config),
        image_bytes=image_bytes(config, precision),
        free_bytes=free_bytes,
    )
    while found.tile > 1 and not found.fits:
        found = replace(found, tile=found.tile // 2)
    return found


def remember_tile(
    config: ModelConfig, device: torch.device, precision: Precision, tile: int
) -> None:
    """Note that more did not fit: plans of this process begin here from now on."""
    _smaller[config, str(device), precision] = tile


def weights_bytes(config: ModelConfig, precision: Precision) -> int:
    """What a prepared model keeps on the device. Enlarging kernels have 4x4 taps for their 3x3,
    and that of colours makes blocks of pixels."""
    coupling, maps, last = _kinds(precision)
    n, m = config.n, config.n_cond
    drive = config.num_classes * m * n * _plain_item(precision)
    total = n * n * _weight_item(coupling) + drive + 4 * (n + m + m * m)
    channels = [maps.padded(c) for c in config.channels]
    for c_in, c_out in pairwise(channels):  # weights, and a factor and a bias an output channel
        total += c_out * (_weight_item(maps) * (16 * c_in + 9 * c_out) + 2 * 8)
    taps = (BLOCK_SIDE * (BLOCK_SIDE + 2)) ** 2
    return total + 3 * (_weight_item(last) * taps * channels[-1] + 8)


def loading_bytes(config: ModelConfig) -> int:
    """What preparing a model takes for a while besides: some blocks of K, a sixteenth of it each,
    or copies of the decoder, in float32."""
    decoder = sum(9 * c_out * (c_in + c_out) for c_in, c_out in pairwise(config.channels))
    return max(4 * 4 * config.n**2 // 16, 4 * 4 * decoder)


def image_bytes(config: ModelConfig, precision: Precision) -> int:
    """Activations of one image. What integrating needs is not given back before decoding, which
    wants larger pieces; maps take turns in two buffers."""
    coupling, maps, last = _kinds(precision)
    n, m = config.n, config.n_cond
    phases = 4 * (n + m) + 2 * 4 * n
    waves = 8 * m * config.num_steps
    swings = 2 * n * (_plain_item(precision) + 2 * _weight_item(coupling))  # and their product
    sides = [SEED_SIZE * 2**block for block in range(config.num_blocks + 1)]
    first, *values = (
        side**2 * maps.width(c) for side, c in zip(sides, config.channels, strict=True)
    )
    item = maps.dtype.itemsize
    buffers = item * values[-1] + max(
        [item * value for value in values[:-1]] + [last.dtype.itemsize * values[-1]]
    )
    levels = 3 * 3 * sides[-1] ** 2  # and two tiles on their way to the host
    return int(phases + waves + swings + item * first + buffers + levels)


def cpu_bytes(config: ModelConfig, threads: int) -> int:
    """What a model adds to a CPU replica's process, any precision: measured at 1.2 times its
    parameters as float32, and up to a third of the GPU's activations for each thread."""
    tile = default_tile(config, torch.device("cpu"))
    return 5 * config.num_params + threads * tile * image_bytes(config, "fp32") // 3


def _kinds(precision: Precision) -> tuple[Numbers, Numbers, Numbers]:
    """Of K, of maps, and of the last map. What the GPU engine does not know is taken for fp32."""
    if precision not in DTYPES and precision not in FP8_PRECISIONS:
        precision = "fp32"
    maps = decoder_numbers(precision)
    return coupling_numbers(precision), maps, Numbers(torch.bfloat16) if maps.dtype == FP8 else maps


def _weight_item(numbers: Numbers) -> int:
    """Bytes of a number on the side of the product that has three halves."""
    return numbers.dtype.itemsize * (3 if numbers.split else 1)


def _plain_item(precision: Precision) -> int:
    """Bytes of the drive, and of what a product with K is rounded to."""
    return 2 if precision in ("bf16", "fp16", *FP8_PRECISIONS) else 4
