"""The CPU engine: our own vector code for the whole of an image, one thread a tile.

K is masked, scaled and packed once and each step is one product on stacked [sin; cos]; the
convolutions run on transformed patches (``un0.engine.patches``). Every sum has one order, whatever
the batch, so an image's bytes depend on nothing but the image: ``un0.engine.vectors``.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from un0.config import ModelConfig
from un0.engine.base import Precision
from un0.engine.patches import (
    ENLARGED,
    PLAIN,
    RELATIVE,
    WAVES,
    convolve,
    levels,
    paint,
    prepare_conv,
    prepare_out,
    seed,
    whole_panels,
)
from un0.engine.product import Floats, Kind, pack
from un0.engine.swings import BLOCK, TABLEAUS, swing
from un0.engine.vectors import HAS_BF16, HAS_FMA, HAS_INT8
from un0.model import Un0Model

GROUP = 4  # images decoded at once, so that their maps stay in the second cache


def fits(precision: Precision) -> bool:
    """Whether this processor has the instructions that the engine needs."""
    return {"fp32": HAS_FMA, "bf16": HAS_BF16, "int8": HAS_BF16 and HAS_INT8}.get(precision, False)


class CpuEngine:
    """Shapes: B images, N main and M conditioning oscillators."""

    name = "cpu"
    any_rows = True

    def __init__(
        self, model: Un0Model, _device: torch.device, precision: Precision, tile: int
    ) -> None:
        c = self.config = model.config
        self.tile = tile
        kind: Kind = precision  # type: ignore[assignment]
        # All rates carry the step length, so that they state a step's change.
        dt = c.integration_time / c.num_steps
        K_NN = _array(model.K) * np.float32(c.coupling_scale * dt)
        np.fill_diagonal(K_NN, 0)
        self._scale_N, self._sum_N = np.zeros(0, np.float32), np.zeros(0, np.int32)
        if kind == "int8":
            K_NN, self._scale_N, self._sum_N = _whole_numbers(K_NN)
        self._K = pack(K_NN.T, kind, BLOCK)
        self._K_cond_MM = _array(model.K_cond) * np.float32(c.conditioning_scale * dt)
        np.fill_diagonal(self._K_cond_MM, 0)
        drive_CNM = _array(model.K_drive) * np.float32(c.conditioning_scale * dt)
        self._drive_CMN = np.ascontiguousarray(drive_CNM.transpose(0, 2, 1))
        self._omega_N = _array(model.omega) * np.float32(dt)
        self._omega_cond_M = _array(model.omega_cond) * np.float32(dt)
        tensors = [_array(parameter) for parameter in model.decoder.parameters()]
        *weights, out = tensors[::2]
        decoder_kind: Kind = "fp32" if kind == "fp32" else "bf16"
        # Two convolutions a block, the first of which enlarges.
        transforms: list[Floats] = [ENLARGED, PLAIN] * c.num_blocks
        self._convs = [
            (prepare_conv(weight, transform, decoder_kind), _filled(bias))
            for weight, bias, transform in zip(weights, tensors[1:-1:2], transforms, strict=True)
        ]
        self._out = prepare_out(out), tensors[-1].copy()

    def __call__(self, initial_phases: Tensor, class_ids: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3)."""
        images = self.decode(self.integrate(initial_phases, class_ids))
        out = np.empty(images.shape, dtype=np.uint8)
        levels(images.numpy().reshape(-1), out.reshape(-1))
        return torch.from_numpy(out)

    def integrate(self, initial_phases: Tensor, class_ids: Tensor) -> Tensor:
        """Final main phases (B, N), float32."""
        c = self.config
        theta_BN = initial_phases[:, : c.n].numpy().copy()
        phi_BM = initial_phases[:, c.n :].numpy().copy()
        swing(
            theta_BN,
            phi_BM,
            class_ids.numpy(),
            c.num_steps,
            TABLEAUS[c.solver],
            self._omega_N,
            self._K,
            self._scale_N,
            self._sum_N,
            self._drive_CMN,
            self._omega_cond_M,
            self._K_cond_MM,
        )
        return torch.from_numpy(theta_BN)

    def decode(self, theta_BN: Tensor) -> Tensor:
        """Images (B, H, W, 3) in [-1, 1], float32, of final main phases (B, N)."""
        side = self.config.image_size
        images = np.empty((len(theta_BN), side, side, 3), dtype=np.float32)
        maps = _maps(self.config, min(GROUP, len(theta_BN)))
        for first in range(0, len(theta_BN), GROUP):
            part = images[first : first + GROUP]
            self._decode(theta_BN[first : first + GROUP].numpy(), maps, part)
        return torch.from_numpy(images)

    def _decode(self, theta_BN: Floats, maps: list[Floats], images: Floats) -> None:
        c = self.config
        x, *others = (whole[: len(images)] for whole in maps)
        relative, waves = RELATIVE.index(c.relativization), WAVES.index(c.encoding)
        for theta_N, seed_map in zip(theta_BN, x, strict=True):
            seed(theta_N, relative, waves, seed_map)
        for (weights, bias), y in zip(self._convs, others, strict=True):
            convolve(x, weights, bias, y)
            x = y
        for last, image in zip(x, images, strict=True):
            paint(last, *self._out, image)


def _maps(c: ModelConfig, images: int) -> list[Floats]:
    """The decoder's maps, borders and spare channels zero: the seed's, then two a block."""
    sides = [4 * 2**block for block in range(c.num_blocks + 1)]
    shapes = [(sides[0], c.channels[0])]
    for side, channels in zip(sides[1:], c.channels[1:], strict=True):
        shapes += [(side, channels)] * 2
    return [
        np.zeros((images, side + 2, side + 2, whole_panels(channels)), dtype=np.float32)
        for side, channels in shapes
    ]


def _array(parameter: Tensor) -> Floats:
    array: Floats = parameter.detach().to("cpu", torch.float32).numpy()
    return array


def _filled(bias: Floats) -> Floats:
    return np.pad(bias, (0, whole_panels(len(bias)) - len(bias)))


def _whole_numbers(
    K_NN: Floats,
) -> tuple[Floats, Floats, np.ndarray[tuple[int], np.dtype[np.int32]]]:
    """K in units of its own a row, the units (over the levels' 127), and what zero adds up to."""
    unit_N = np.maximum(np.abs(K_NN).max(axis=1), np.float32(1e-30)) / np.float32(127)
    whole_NN = np.rint(K_NN / unit_N[:, None])
    return whole_NN, unit_N / np.float32(127), (128 * whole_NN.sum(axis=1)).astype(np.int32)
