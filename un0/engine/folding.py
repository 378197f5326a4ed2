"""The decoder's "nearest upsample x2, then 3x3 convolution" without the enlarged map. It is exact.

Along one axis the enlarged map holds every x[i] twice, so that the taps w0, w1, w2 fall as

    y[2i]     = w0 x[i-1] + (w1 + w2) x[i]      = s x[i] - w0 D[i]
    y[2i + 1] = (w0 + w1) x[i] + w2 x[i+1]      = s x[i] + w2 D[i+1]

with s = w0 + w1 + w2 and D[i] = x[i] - x[i-1]. The middle column is a transposed convolution with
four taps and stride 2 ("sub-pixel", 2.25 times fewer FLOPs in two dimensions); the right one takes
three products an axis for two outputs ("three-tap", 4 times fewer, but more maps to move).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

Enlarging = Literal["plain", "sub-pixel", "three-tap"]
ENLARGINGS: tuple[str, ...] = get_args(Enlarging)


def fold(weight: Tensor, enlarging: Enlarging) -> Tensor:
    """What ``enlarge`` wants of a 3x3 kernel (C_out, C_in, 3, 3)."""
    if enlarging == "sub-pixel":
        return _sub_pixel(_sub_pixel(weight, 2), 3).transpose(0, 1)
    if enlarging == "three-tap":
        return torch.stack(_three_taps(weight))
    return weight


def enlarge(x_BCHW: Tensor, folded: Tensor, bias: Tensor | None, enlarging: Enlarging) -> Tensor:
    """conv3x3(upsample(x)) + bias, (B, C_out, 2H, 2W)."""
    if enlarging == "sub-pixel":
        return F.conv_transpose2d(x_BCHW, folded, bias, stride=2, padding=1)
    if enlarging == "three-tap":
        y = _enlarge_by_three_taps(x_BCHW, folded)
        return y if bias is None else y + bias[:, None, None]
    x = F.interpolate(x_BCHW, scale_factor=2, mode="nearest")
    return F.conv2d(x, folded, bias, padding=1)


def by_phase(folded_IO44: Tensor) -> Tensor:
    """A "sub-pixel" kernel as four convolutions of the small map, (4 phases, 4 taps, C_out, C_in).

    Output (2i + py, 2j + px) adds up taps (ty, tx) of (i + py - 1 + ty, j + px - 1 + tx).
    """
    taps: Tensor = folded_IO44.flip(2, 3).unflatten(3, (2, 2)).unflatten(2, (2, 2))
    return taps.permute(3, 5, 2, 4, 1, 0).flatten(2, 3).flatten(0, 1)  # of (I, O, ty, py, tx, px)


def from_phases(taps_PTOI: Tensor) -> Tensor:
    """The "sub-pixel" kernel (C_in, C_out, 4, 4) of ``by_phase``."""
    taps: Tensor = taps_PTOI.unflatten(1, (2, 2)).unflatten(0, (2, 2))
    return taps.permute(5, 4, 2, 0, 3, 1).flatten(4, 5).flatten(2, 3).flip(2, 3)  # likewise


def _sub_pixel(weight: Tensor, axis: int) -> Tensor:
    """The taps w2, w1 + w2, w0 + w1, w0 of the transposed convolution along an axis."""
    w0, w1, w2 = weight.unbind(axis)
    return torch.stack([w2, w1 + w2, w0 + w1, w0], dim=axis)


def _three_taps(weight: Tensor) -> list[Tensor]:
    """Nine 1x1 kernels (C_out, C_in): of the taps s, -w0, w2 of either axis, rows first."""
    by_row = [weight.sum(2), -weight[:, :, 0], weight[:, :, 2]]
    return [tap for row in by_row for tap in (row.sum(2), -row[:, :, 0], row[:, :, 2])]


def _enlarge_by_three_taps(x_BCHW: Tensor, taps_9OC: Tensor) -> Tensor:
    ss, s0, s2, os, o0, o2, ts, t0, t2 = taps_9OC[..., None, None]
    along_x, along_y = _steps(x_BCHW, 3), _steps(x_BCHW, 2)
    across = _steps(along_y, 3)
    same = F.conv2d(x_BCHW, ss)
    column = F.conv2d(along_x, torch.cat([s0, s2])).chunk(2, dim=1)
    row = F.conv2d(along_y, torch.cat([os, ts])).chunk(2, dim=1)
    corner = F.conv2d(across, torch.cat([o0, o2, t0, t2])).chunk(4, dim=1)
    h, w = x_BCHW.shape[2:]
    outputs = [
        same
        + column[x][..., x : x + w]
        + row[y][:, :, y : y + h]
        + corner[2 * y + x][:, :, y : y + h, x : x + w]
        for y in (0, 1)
        for x in (0, 1)
    ]
    whole: Tensor = torch.stack(outputs).unflatten(0, (2, 2))  # (y, x, B, C, H, W)
    whole = whole.permute(2, 4, 0, 5, 1, 3).flatten(3, 4).flatten(1, 2)  # (B, 2H, 2W, C)
    return whole.permute(0, 3, 1, 2)


def _steps(x: Tensor, axis: int) -> Tensor:
    """x[i] - x[i-1] along an axis, from 0 before the first to 0 after the last: one longer."""
    ends = [1, 1] if axis == 3 else [0, 0, 1, 1]
    padded = F.pad(x, ends)
    length = padded.shape[axis] - 1
    return padded.narrow(axis, 1, length) - padded.narrow(axis, 0, length)
