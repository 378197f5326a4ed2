"""The decoder of one tile of images: from settled phases to pixels, as compiled loops."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, float64, int32, uint8
from numpy.typing import NDArray

from un0.config import Encoding, Relativization
from un0.engine.patches import convolve
from un0.engine.product import FP32, Floats, multiply, pack, sin_cos
from un0.engine.team import Part, meet, share
from un0.engine.vectors import PANEL
from un0.jit import compiled

RELATIVE: tuple[Relativization, ...] = ("absolute", "mean_relative", "ref_oscillator")
WAVES: tuple[Encoding, ...] = ("raw", "sin", "sin_cos")
MEAN, FIRST = RELATIVE.index("mean_relative"), RELATIVE.index("ref_oscillator")
RAW, SIN_COS = WAVES.index("raw"), WAVES.index("sin_cos")

_LOG_2 = float(np.log(2))


def prepare_out(weight_OIHW: Floats) -> NDArray[Any]:
    """Weights of ``paint``: a column for each of 3 colours of each of 9 neighbours."""
    columns = weight_OIHW.transpose(1, 2, 3, 0).reshape(weight_OIHW.shape[1], 27)
    return pack(columns, "fp32")


@compiled
def develop(
    part: Part,
    theta_BN: Floats,
    relative: int,
    waves: int,
    weights: tuple[NDArray[Any], ...],
    biases: tuple[Floats, ...],
    out_weights: NDArray[Any],
    out_bias: Floats,
    maps: tuple[Floats, ...],
    images: Floats,
    levels: NDArray[np.uint8],
) -> None:
    """images (B, H, W, 3) in [-1, 1] and their levels of phases (B, N): as many at once as the
    maps are.

    maps: the seed's, then one a convolution, borders and spare channels zero; all are the team's.
    The members take even parts of each layer, and meet after it.
    """
    if not meet(part):
        return
    at_once, side, last = maps[0].shape[0], images.shape[1], maps[len(weights)]
    for first in range(0, images.shape[0], at_once):
        count = min(at_once, images.shape[0] - first)
        begin, end = share(part, count)
        for i in range(begin, end):
            seed(theta_BN[first + i], relative, waves, maps[0][i])
        if not meet(part):
            return
        for layer in range(len(weights)):
            convolve(part, count, maps[layer], weights[layer], biases[layer], maps[layer + 1])
            if not meet(part):
                return
        begin, end = share(part, count * side)
        for i in range(begin // side, (end + side - 1) // side):
            top, bottom = max(begin - i * side, 0), min(end - i * side, side)
            rows = images[first + i][top:bottom]
            paint(last[i], out_weights, out_bias, top, rows)
            to_uint8(rows.reshape(-1), levels[first + i][top:bottom].reshape(-1))


@compiled
def seed(theta_N: Floats, relative: int, waves: int, x: Floats) -> None:
    """The readout of one image's phases as a map x (6, 6, channels): feature f is pixel f % 16
    of channel f // 16. relative and waves: indices into ``RELATIVE`` and ``WAVES``."""
    n = theta_N.size
    origin = float32(0)
    if relative == MEAN:
        total = 0.0
        for i in range(n):
            total += theta_N[i]
        origin = float32(total / n)
    elif relative == FIRST:
        origin = theta_N[0]
    phases = np.empty(n, dtype=np.float32)
    for i in range(n):
        phases[i] = theta_N[i] - origin
    features = np.empty((2, n), dtype=np.float32)
    if waves == RAW:
        features[0] = phases
    else:
        sin_cos(phases, features[0], features[1])
    for half in range(2 if waves == SIN_COS else 1):
        for i in range(n):
            f = half * n + i
            x[1 + f % 16 // 4, 1 + f % 4, f // 16] = features[half, i]


@compiled
def paint(x: Floats, weights: NDArray[Any], bias: Floats, top: int, rows: Floats) -> None:
    """Rows (R, W, 3) of an image in [-1, 1] from ``top`` on: tanh of the 3 x 3 convolution of the
    map x to 3 colours."""
    height, width, channels = x.shape[0] - 2, x.shape[1] - 2, x.shape[2]
    count = rows.shape[0]
    # What each pixel adds to each of its neighbours, from the row above ``top`` on.
    parts = np.zeros((count + 2, width + 2, PANEL), dtype=np.float32)
    for row in range(max(top, 1), min(top + count + 1, height) + 1):
        multiply(
            FP32,
            x[row, 1].ctypes.data,
            4 * channels,
            weights.ctypes.data,
            parts[row - top, 1].ctypes.data,
            4 * PANEL,
            weights.shape[2],
            1,
            width,
        )
    for row in range(count):
        for column in range(width):
            for colour in range(3):
                total = bias[colour]
                for dy in range(3):
                    for dx in range(3):
                        total += parts[row + dy, column + dx, 3 * (3 * dy + dx) + colour]
                rows[row, column, colour] = total
    _tanh(rows.reshape(-1))


@compiled
def _tanh(x: Floats) -> None:
    """tanh of x (N,) in place, within 2e-7: 1 - 2 / (1 + exp(2x)), exp by its Taylor series."""
    exponents = np.empty(x.size, dtype=np.int32)
    powers = exponents.view(np.float32)
    for i in range(x.size):
        twice = min(max(float32(2) * x[i], float32(-20)), float32(20))
        whole = np.rint(twice * float32(1 / _LOG_2))
        exponents[i] = (int32(whole) + int32(127)) << int32(23)
        r = float32(float64(twice) - float64(whole) * _LOG_2)  # |r| <= 0.35
        e = float32(1 / 5040) * r + float32(1 / 720)
        e = ((e * r + float32(1 / 120)) * r + float32(1 / 24)) * r + float32(1 / 6)
        x[i] = ((e * r + float32(0.5)) * r + float32(1)) * r + float32(1)
    for i in range(x.size):
        x[i] = float32(1) - float32(2) / (float32(1) + x[i] * powers[i])


@compiled
def to_uint8(x: Floats, out: NDArray[np.uint8]) -> None:
    """``un0.engine.base.to_uint8`` of x (N,)."""
    for i in range(x.size):
        level = np.rint((x[i] + float32(1)) * float32(127.5))
        out[i] = uint8(min(max(level, float32(0)), float32(255)))
