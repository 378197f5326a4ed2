"""The decoder's convolutions as compiled loops: by patches of 2 x 2 pixels.

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
from numpy.typing import NDArray

from un0.engine.product import FP32, Floats, Kind, multiply, pack
from un0.engine.team import Part, share
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


def whole_panels(channels: int) -> int:
    """The channels of a map that holds so many."""
    return -(-channels // PANEL) * PANEL


def prepare_conv(weight_OIHW: Floats, transform: Floats, kind: Kind) -> NDArray[Any]:
    """Weights of ``convolve``: (points, panels, words, PANEL, numbers of a word)."""
    points = np.einsum("ph,oihw,qw->pqio", transform, weight_OIHW, transform)
    return np.concatenate([pack(point, kind) for row in points for point in row])


@compiled
def _patches_at_once(channels: int) -> int:
    """Few, so that their points stay in the first caches; more where the weights of a panel, read
    once for all of them, are the larger part. Measured."""
    return min(max(16, channels // 8), 64)


@compiled
def convolve(
    part: Part, images: int, x: Floats, weights: NDArray[Any], bias: Floats, y: Floats
) -> None:
    """y = LeakyReLU of the 3 x 3 convolution of x, first upsampled by 2 if y is twice as large.

    Of the first ``images`` maps, and of these the member's share: whole rows of patches, which
    are an even number, as ``multiply`` wants.
    """
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
    begin, end = share(part, images * side)
    for first in range(begin * side, end * side, at_once):
        count = min(at_once, end * side - first)
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
