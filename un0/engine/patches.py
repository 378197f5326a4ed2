"""The decoder of one tile of images as compiled loops: convolutions by patches of 2 x 2 pixels.

Each convolution computes 2 x 2 output pixels of a patch of its input: the patch and the 3 x 3
weights are transformed, multiplied point by point (one product over the channels each) and
transformed back. Per axis, with outputs y and points m:

- after an upsampling by 2 a patch is one pixel and its neighbours (``enlarged``), three points:
  (x1, x1 - x0, x2 - x1) times (w0 + w1 + w2, -w0, w2); y = (m0 + m1, m0 + m2).
- else Winograd's minimal filter F(2, 3) (Lavin and Gray, 2016; ``plain``), four points:
  (x0 - x2, x1 + x2, x2 - x1, x1 - x3) times (w0, (w0 + w1 + w2) / 2, (w0 - w1 + w2) / 2, w2);
  y = (m0 + m1 + m2, m1 - m2 - m3).

That is 9 or 16 multiplications where the plain sum takes 36. The transforms are in
``un0.engine.vectors``. Maps are (images, H + 2, W + 2, channels), with a border of zeros and the
channels filled up with zeros to whole panels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, float64, int32, uint8
from numpy.typing import NDArray

from un0.config import Encoding, Relativization
from un0.engine.product import FP32, Floats, Kind, multiply, pack, sin_cos
from un0.engine.vectors import (
    PANEL,
    enlarged_in,
    enlarged_in_bf16,
    enlarged_out,
    plain_in,
    plain_in_bf16,
    plain_out,
)
from un0.jit import compiled

ENLARGED: Floats = np.array([[1, 1, 1], [-1, 0, 0], [0, 0, 1]], dtype=np.float32)
PLAIN: Floats = np.array([[2, 0, 0], [1, 1, 1], [1, -1, 1], [0, 0, 2]], dtype=np.float32)
PLAIN *= np.float32(0.5)
RELATIVE: tuple[Relativization, ...] = ("absolute", "mean_relative", "ref_oscillator")
WAVES: tuple[Encoding, ...] = ("raw", "sin", "sin_cos")
MEAN, FIRST = RELATIVE.index("mean_relative"), RELATIVE.index("ref_oscillator")
RAW, SIN_COS = WAVES.index("raw"), WAVES.index("sin_cos")

_LOG_2 = float(np.log(2))


def whole_panels(channels: int) -> int:
    """The channels of a map that holds so many."""
    return -(-channels // PANEL) * PANEL


def prepare_conv(weight_OIHW: Floats, transform: Floats, kind: Kind) -> NDArray[Any]:
    """Weights of ``convolve``: (points, panels, words, PANEL, numbers of a word)."""
    points = np.einsum("ph,oihw,qw->pqio", transform, weight_OIHW, transform)
    return np.concatenate([pack(point, kind) for row in points for point in row])


def prepare_out(weight_OIHW: Floats) -> NDArray[Any]:
    """Weights of ``paint``: a column for each of 3 colours of each of 9 neighbours."""
    columns = weight_OIHW.transpose(1, 2, 3, 0).reshape(weight_OIHW.shape[1], 27)
    return pack(columns, "fp32")


@compiled
def _patches_at_once(channels: int) -> int:
    """Few, so that their points stay in the first caches; more where the weights of a panel, read
    once for all of them, are the larger part. Measured."""
    return min(max(16, channels // 8), 64)


@compiled
def convolve(x: Floats, weights: NDArray[Any], bias: Floats, y: Floats) -> None:
    """y = LeakyReLU of the 3 x 3 convolution of x, first upsampled by 2 if y is twice as large."""
    side = (y.shape[1] - 2) // 2  # patches along an axis
    enlarged = x.shape[1] == side + 2
    points, panels, words, _, numbers = weights.shape
    stride = 1 if enlarged else 2
    channels = x.shape[3]
    word_bytes = 4 * channels // numbers
    at_once = _patches_at_once(channels)
    v = np.empty((points, at_once, channels // numbers), dtype=np.uint32)
    m = np.empty((points, at_once, PANEL), dtype=np.float32)
    v_point, m_point = at_once * word_bytes, 4 * at_once * PANEL
    x_pixel, y_pixel = 4 * channels, 4 * y.shape[3]
    x_row, y_row = x_pixel * x.shape[2], y_pixel * y.shape[2]
    x_image, y_image = x_row * x.shape[1], y_row * y.shape[1]
    first_y = y.ctypes.data + y_row + y_pixel  # inside the border
    patches = x.shape[0] * side * side
    for first in range(0, patches, at_once):
        count = min(at_once, patches - first)
        for p in range(count):
            corner = x.ctypes.data + _offset(
                first + p, side, x_image, stride * x_row, stride * x_pixel
            )
            target = v.ctypes.data + p * word_bytes
            if enlarged:
                if numbers == FP32:
                    enlarged_in(corner, x_row, x_pixel, target, v_point, channels)
                else:
                    enlarged_in_bf16(corner, x_row, x_pixel, target, v_point, channels)
            elif numbers == FP32:
                plain_in(corner, x_row, x_pixel, target, v_point, channels)
            else:
                plain_in_bf16(corner, x_row, x_pixel, target, v_point, channels)
        for panel in range(panels):
            for point in range(points):
                multiply(
                    numbers,
                    v.ctypes.data + point * v_point,
                    word_bytes,
                    weights.ctypes.data + 4 * words * PANEL * (point * panels + panel),
                    m.ctypes.data + point * m_point,
                    4 * PANEL,
                    words,
                    1,
                    count,
                )
            for p in range(count):
                source, channel = m.ctypes.data + 4 * PANEL * p, 4 * PANEL * panel
                corner = first_y + _offset(first + p, side, y_image, 2 * y_row, 2 * y_pixel)
                addend, target = bias.ctypes.data + channel, corner + channel
                if enlarged:
                    enlarged_out(source, m_point, addend, target, y_row, y_pixel)
                else:
                    plain_out(source, m_point, addend, target, y_row, y_pixel)


@compiled
def _offset(patch: int, side: int, image_step: int, row_step: int, column_step: int) -> int:
    """Bytes from the first patch of the first image to this one."""
    image, place = patch // (side * side), patch % (side * side)
    return image * image_step + place // side * row_step + place % side * column_step


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
    features = np.empty((2, n), dtype=np.float32)
    for i in range(n):
        features[0, i] = theta_N[i] - origin
    if waves != RAW:
        sin_cos(features[0], features[0], features[1])
    for half in range(2 if waves == SIN_COS else 1):
        for i in range(n):
            f = half * n + i
            x[1 + f % 16 // 4, 1 + f % 4, f // 16] = features[half, i]


@compiled
def paint(x: Floats, weights: NDArray[Any], bias: Floats, image: Floats) -> None:
    """image (H, W, 3) in [-1, 1] = tanh of the 3 x 3 convolution of the map x to 3 colours."""
    height, width, channels = x.shape[0] - 2, x.shape[1] - 2, x.shape[2]
    parts = np.zeros((height + 2, width + 2, PANEL), dtype=np.float32)
    for row in range(1, height + 1):
        multiply(
            FP32,
            x[row, 1].ctypes.data,
            4 * channels,
            weights.ctypes.data,
            parts[row, 1].ctypes.data,
            4 * PANEL,
            weights.shape[2],
            1,
            width,
        )
    for row in range(height):
        for column in range(width):
            for colour in range(3):
                total = bias[colour]
                for dy in range(3):
                    for dx in range(3):
                        total += parts[row + dy, column + dx, 3 * (3 * dy + dx) + colour]
                image[row, column, colour] = total
    _tanh(image.reshape(-1))


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
def levels(image: Floats, out: NDArray[np.uint8]) -> None:
    """``un0.engine.base.to_uint8`` of x (N,)."""
    for i in range(image.size):
        level = np.rint((image[i] + float32(1)) * float32(127.5))
        out[i] = uint8(min(max(level, float32(0)), float32(255)))
