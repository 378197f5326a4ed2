"""The CPU engine: our own vector code for the whole of an image, by one thread or several together.

K is masked, scaled and packed once and each step is one product on stacked [sin; cos]; the
convolutions run on transformed patches (``un0.engine.patches``). Every sum has one order, whatever
the batch, so an image's bytes depend on nothing but the image: ``un0.engine.vectors``.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from un0.config import ModelConfig
from un0.engine.base import Precision
from un0.engine.patches import ENLARGED, PLAIN, prepare_conv, whole_panels
from un0.engine.pictures import RELATIVE, WAVES, develop, prepare_out
from un0.engine.product import FP32, NUMBERS, Floats, Kind, pack
from un0.engine.swings import BLOCK, TABLEAUS, swing
from un0.engine.team import Part, leave, team_of
from un0.engine.vectors import HAS_BF16, HAS_FMA, HAS_INT8
from un0.model import Un0Model

GROUP = 4  # images decoded at once by a thread, so that their maps stay in the second cache
SHARE = 2  # panels of K: who has fewer waits more than it helps


def fits(precision: Precision) -> bool:
    """Whether this processor has the instructions that the engine needs, the system its calls."""
    has = {"fp32": HAS_FMA, "bf16": HAS_BF16, "int8": HAS_BF16 and HAS_INT8}
    return os.name == "posix" and has.get(precision, False)


class CpuEngine:
    """Shapes: B images, N main and M conditioning oscillators."""

    name = "cpu"
    any_rows = True

    def __init__(
        self, model: Un0Model, _device: torch.device, precision: Precision, tile: int
    ) -> None:
        c = self.config = model.config
        self.tile = tile
        # Measured: the larger K is, the more images pay for every thread's reading all of it.
        self.few = 8 if c.n < 2048 else 32
        kind: Kind = precision  # type: ignore[assignment]
        self.numbers = NUMBERS[kind]
        # All rates carry the step length, so that they state a step's change.
        dt = c.integration_time / c.num_steps
        K_NN = _array(model.K) * np.float32(c.coupling_scale * dt)
        np.fill_diagonal(K_NN, 0)
        self._scale_N, self._sum_N = np.zeros(0, np.float32), np.zeros(0, np.int32)
        if kind == "int8":
            K_NN, self._scale_N, self._sum_N = _whole_numbers(K_NN)
        self._K = pack(K_NN.T, kind, BLOCK)
        self.most = max(1, self._K.shape[1] // SHARE)
        self._K_cond_MM = _array(model.K_cond) * np.float32(c.conditioning_scale * dt)
        np.fill_diagonal(self._K_cond_MM, 0)
        drive_CNM = _array(model.K_drive) * np.float32(c.conditioning_scale * dt)
        self._drive_CMN = np.ascontiguousarray(drive_CNM.transpose(0, 2, 1))
        self._omega_N = _array(model.omega) * np.float32(dt)
        self._omega_cond_M = _array(model.omega_cond) * np.float32(dt)
        tensors = [_array(parameter) for parameter in model.decoder.parameters()]
        *weights, out = tensors[::2]
        *biases, out_bias = tensors[1::2]
        decoder_kind: Kind = "fp32" if kind == "fp32" else "bf16"
        # Two convolutions a block, the first of which enlarges.
        transforms: list[Floats] = [ENLARGED, PLAIN] * c.num_blocks
        self._weights = tuple(
            prepare_conv(weight, transform, decoder_kind)
            for weight, transform in zip(weights, transforms, strict=True)
        )
        self._biases = tuple(_filled(bias) for bias in biases)
        self._out = prepare_out(out), out_bias.copy()

    def __call__(self, initial_phases: Tensor, class_ids: Tensor) -> Tensor:
        """Images uint8 (B, H, W, 3)."""
        job = self.share(initial_phases, class_ids, 1)
        job.work(0)
        return torch.from_numpy(job.levels)

    def share(self, initial_phases: Tensor, class_ids: Tensor, members: int) -> CpuJob:
        """The same for ``members`` threads to do together."""
        return CpuJob(self, initial_phases.numpy(), class_ids.numpy(), members)

    def integrate(
        self, part: Part, theta_BN: Floats, phi_BM: Floats, class_ids_B: Any, waves: Any, words: Any
    ) -> None:
        """A member's part of integrating the main phases in place; phi is its own."""
        swing(
            part,
            theta_BN,
            phi_BM,
            class_ids_B,
            self.config.num_steps,
            TABLEAUS[self.config.solver],
            self._omega_N,
            self._K,
            self._scale_N,
            self._sum_N,
            self._drive_CMN,
            self._omega_cond_M,
            self._K_cond_MM,
            waves,
            words,
        )

    def decode(
        self,
        part: Part,
        theta_BN: Floats,
        maps: tuple[Floats, ...],
        images: Floats,
        levels: NDArray[np.uint8],
    ) -> None:
        """A member's part of making images (B, H, W, 3) of settled phases."""
        develop(
            part,
            theta_BN,
            RELATIVE.index(self.config.relativization),
            WAVES.index(self.config.encoding),
            self._weights,
            self._biases,
            *self._out,
            maps,
            images,
            levels,
        )


class CpuJob:
    """One tile of images that ``members`` threads make together, each by a call of ``work``.

    images: float32 (B, H, W, 3) in [-1, 1]. levels: the same as uint8.
    """

    def __init__(
        self, engine: CpuEngine, phases: Floats, class_ids_B: NDArray[np.int64], members: int
    ) -> None:
        c, rows = engine.config, len(phases)
        self._engine, self._team = engine, team_of(members)
        self._theta_BN, self._phi_BM = phases[:, : c.n].copy(), phases[:, c.n :]
        self._class_ids_B = class_ids_B
        sets = min(members, 2)
        words = 0 if engine.numbers == FP32 else c.n // engine.numbers
        self._waves = np.empty((sets, rows, 2, c.n), dtype=np.float32)
        self._words = np.empty((sets, rows, 2, words), dtype=np.uint32)
        self._maps = _maps(c, min(GROUP * members, rows))
        self.images = np.empty((rows, c.image_size, c.image_size, 3), dtype=np.float32)
        self.levels = np.empty(self.images.shape, dtype=np.uint8)

    def work(self, member: int) -> None:
        """A member's part. The images are there when all members have returned."""
        part, engine = self._team[member], self._engine
        try:
            phi_BM = self._phi_BM.copy()
            engine.integrate(
                part, self._theta_BN, phi_BM, self._class_ids_B, self._waves, self._words
            )
            engine.decode(part, self._theta_BN, self._maps, self.images, self.levels)
        except BaseException:
            self.abandon()
            raise

    def abandon(self) -> None:
        """Let members that have begun end without waiting for the others."""
        leave(self._team[0])


def _maps(c: ModelConfig, images: int) -> tuple[Floats, ...]:
    """The decoder's maps, borders and spare channels zero: the seed's, then two a block."""
    sides = [4 * 2**block for block in range(c.num_blocks + 1)]
    shapes = [(sides[0], c.channels[0])]
    for side, channels in zip(sides[1:], c.channels[1:], strict=True):
        shapes += [(side, channels)] * 2
    return tuple(
        np.zeros((images, side + 2, side + 2, whole_panels(channels)), dtype=np.float32)
        for side, channels in shapes
    )


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
