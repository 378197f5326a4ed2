"""PNG's filters (RFC 2083, 6), as compiled loops: what a pixel's neighbours say of it, taken off."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from un0.jit import compiled

Bytes = NDArray[np.uint8]

NONE, SUB, UP, AVERAGE, PAETH = range(5)
_FILTERS = 5
_EVERY = 4  # rows of which one is tried


@compiled
def choose(image: Bytes, kind_sums: NDArray[np.int64]) -> int:
    """The filter of an image (H, 3 W) that leaves least, judging by some of its rows."""
    height, width = image.shape
    kind_sums[:] = 0
    for y in range(min(height - 1, 1), height, _EVERY):
        up = image[y - 1 if y > 0 else 0]
        here = image[y]
        none, sub, ups, average, paeth = (np.int32(0), np.int32(0), np.int32(0), np.int32(0), np.int32(0))
        for i in range(3, width):
            x, a, b, c = np.int32(here[i]), np.int32(here[i - 3]), np.int32(up[i]), np.int32(up[i - 3])
            none = np.int32(none + _size(x))
            sub = np.int32(sub + _size(x - a))
            ups = np.int32(ups + _size(x - b))
            average = np.int32(average + _size(x - ((a + b) >> 1)))
            paeth = np.int32(paeth + _size(x - _paeth(a, b, c)))
        kind_sums[NONE] += none
        kind_sums[SUB] += sub
        kind_sums[UP] += ups
        kind_sums[AVERAGE] += average
        kind_sums[PAETH] += paeth
    best = SUB
    for kind in range(_FILTERS):
        if kind_sums[kind] < kind_sums[best]:
            best = kind
    return best


@compiled
def _size(difference: int) -> np.int32:
    """Of a difference of bytes, which wraps around."""
    return np.int32(abs(np.int32(np.int8(difference))))


@compiled
def _paeth(a: int, b: int, c: int) -> np.int32:
    """Of the neighbours left, above and both, the one nearest to a + b - c."""
    to_a, to_b = np.int32(abs(np.int32(b - c))), np.int32(abs(np.int32(a - c)))
    to_c = np.int32(abs(np.int32(np.int32(b - c) + np.int32(a - c))))
    if to_a <= to_b and to_a <= to_c:
        return np.int32(a)
    return np.int32(b) if to_b <= to_c else np.int32(c)


@compiled
def apply(image: Bytes, kind: int, rows: Bytes) -> None:
    """Write the rows (H, 1 + 3 W) of an image (H, 3 W), each after its filter's number."""
    height, width = image.shape
    for y in range(height):
        here, out = image[y], rows[y]
        out[0] = kind
        left = out[1:]
        for i in range(3):
            left[i] = here[i]
        if kind == NONE:
            for i in range(3, width):
                left[i] = here[i]
        elif kind == SUB:
            for i in range(3, width):
                left[i] = here[i] - here[i - 3]
        elif y == 0:
            _first(here, kind, left)
        elif kind == UP:
            up = image[y - 1]
            for i in range(width):
                left[i] = here[i] - up[i]
        elif kind == AVERAGE:
            up = image[y - 1]
            for i in range(3):
                left[i] = here[i] - (up[i] >> 1)
            for i in range(3, width):
                left[i] = here[i] - ((np.int32(here[i - 3]) + np.int32(up[i])) >> 1)
        else:
            up = image[y - 1]
            for i in range(3):
                left[i] = here[i] - up[i]
            for i in range(3, width):
                left[i] = here[i] - _paeth(np.int32(here[i - 3]), np.int32(up[i]), np.int32(up[i - 3]))


@compiled
def _first(here: Bytes, kind: int, left: Bytes) -> None:
    """The first row, above which all is black."""
    for i in range(3, len(here)):
        if kind == UP:
            left[i] = here[i]
        elif kind == AVERAGE:
            left[i] = here[i] - (here[i - 3] >> 1)
        else:
            left[i] = here[i] - here[i - 3]
