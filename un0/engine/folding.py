"""Convolutions of the decoder rewritten, exactly, as others that do less or move less.

"Nearest upsample x2, then 3x3 convolution" needs no enlarged map. Along one axis that map holds
every x[i] twice, so that the taps w0, w1, w2 fall as

    y[2i]     = w0 x[i-1] + (w1 + w2) x[i]
    y[2i + 1] = (w0 + w1) x[i] + w2 x[i+1]

which is a transposed convolution with four taps and stride 2, or, for each of the four phases of an
output pixel, a convolution with 2x2 taps ("sub-pixel": 2.25 times fewer FLOPs).
"""

from __future__ import annotations

import torch
from torch import Tensor

# Pixels on a side of the blocks in which colours are made: 36 pixels are read for 16, not 144.
BLOCK_SIDE = 4


def sub_pixel(weight_OI33: Tensor) -> Tensor:
    """The transposed convolution (C_in, C_out, 4, 4), stride 2, padding 1, that is upsampling and
    then this 3x3 one."""
    return _four_taps(_four_taps(weight_OI33, 2), 3).transpose(0, 1)


def by_phase(folded_IO44: Tensor) -> Tensor:
    """A ``sub_pixel`` kernel as convolutions of the small map: (4 phases, 4 taps, C_out, C_in).

    Output (2i + py, 2j + px) adds up taps (ty, tx) of (i + py - 1 + ty, j + px - 1 + tx).
    """
    taps: Tensor = folded_IO44.flip(2, 3).unflatten(3, (2, 2)).unflatten(2, (2, 2))
    return taps.permute(3, 5, 2, 4, 1, 0).flatten(2, 3).flatten(0, 1)  # of (I, O, ty, py, tx, px)


def from_phases(taps_PTOI: Tensor) -> Tensor:
    """The ``sub_pixel`` kernel (C_in, C_out, 4, 4) of ``by_phase``."""
    taps: Tensor = taps_PTOI.unflatten(1, (2, 2)).unflatten(0, (2, 2))
    return taps.permute(5, 4, 2, 0, 3, 1).flatten(4, 5).flatten(2, 3).flip(2, 3)  # likewise


def by_block(weight_OI33: Tensor) -> Tensor:
    """A 3x3 convolution that makes a block of 4x4 pixels at once, (36 taps, 16 C_out, C_in): the
    same products and many with zero, but a pixel is read 2.25 times instead of 9.

    Outputs are in the order (row, column, channel) of the block; taps begin a pixel outside of it.
    """
    o, i = weight_OI33.shape[:2]
    side = BLOCK_SIDE + 2
    taps = weight_OI33.new_zeros(side, side, BLOCK_SIDE, BLOCK_SIDE, o, i)
    for y in range(BLOCK_SIDE):
        for x in range(BLOCK_SIDE):
            taps[y : y + 3, x : x + 3, y, x] = weight_OI33.permute(2, 3, 0, 1)
    return taps.flatten(2, 4).flatten(0, 1)


def from_block(taps_TNI: Tensor) -> Tensor:
    """The 3x3 kernel (C_out, C_in, 3, 3) of ``by_block``: that of the block's first pixel."""
    side = BLOCK_SIDE + 2
    first: Tensor = taps_TNI.unflatten(1, (BLOCK_SIDE**2, -1))[:, 0].unflatten(0, (side, side))
    return first[:3, :3].permute(2, 3, 0, 1)


def _four_taps(weight: Tensor, axis: int) -> Tensor:
    """The taps w2, w1 + w2, w0 + w1, w0 of the transposed convolution along an axis."""
    w0, w1, w2 = weight.unbind(axis)
    return torch.stack([w2, w1 + w2, w0 + w1, w0], dim=axis)
