"""Products with prepared weights, in float32, bfloat16 or 8-bit integers, on one thread."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import float32, float64, int64, uint8, uint32
from numpy.typing import NDArray

from un0.engine.vectors import (
    PANEL,
    ROWS,
    bf16_many,
    bf16_two,
    f32_many,
    f32_two,
    int8_many,
    int8_two,
)
from un0.jit import compiled

Floats = NDArray[np.float32]
Kind = Literal["fp32", "bf16", "int8"]

# Numbers in a word of 32 bits; compiled code uses it to distinguish them.
NUMBERS: dict[Kind, int] = {"fp32": 1, "bf16": 2, "int8": 4}
FP32, BF16, INT8 = NUMBERS["fp32"], NUMBERS["bf16"], NUMBERS["int8"]
_HALF_PI = np.pi / 2


def pack(W_KN: Floats, kind: Kind, block: int | None = None) -> NDArray[Any]:
    """Weights as ``multiply`` reads them: (blocks, panels, words of a block, PANEL, numbers).

    W_KN: K input by N output channels; both are filled up with zeros. block: words of K in one
    block, None for all. int8 takes whole numbers of -127 to 127.
    """
    numbers = NUMBERS[kind]
    words = -(-W_KN.shape[0] // numbers)
    block = min(block or words, words)
    blocks, panels = -(-words // block), -(-W_KN.shape[1] // PANEL)
    packed = np.empty((blocks, panels, block, PANEL, numbers), dtype=_DTYPES[kind])
    for index in range(blocks):
        part = W_KN[index * block * numbers : (index + 1) * block * numbers]
        filled = np.zeros((block * numbers, panels * PANEL), dtype=packed.dtype)
        filled[: part.shape[0], : part.shape[1]] = _as_bf16(part) if kind == "bf16" else part
        split = filled.reshape(block, numbers, panels, PANEL)
        packed[index] = split.transpose(2, 0, 3, 1)
    return packed


_DTYPES = {"fp32": np.float32, "bf16": np.uint16, "int8": np.int8}


def _as_bf16(x: Floats) -> NDArray[np.uint16]:
    """Rounded to nearest even."""
    bits = np.ascontiguousarray(x).view(np.uint32)
    return ((bits + (((bits >> 16) & 1) + 0x7FFF)) >> 16).astype(np.uint16)


@compiled
def multiply(
    numbers: int, a: int, a_row: int, w: int, c: int, c_row: int, words: int, fresh: int, rows: int
) -> None:
    """c (rows, PANEL) = a @ w, or c + a @ w unless ``fresh``. Addresses; strides in bytes.

    rows: even, as are the rows of sines and cosines and the patches of a map.
    """
    r = 0
    if numbers == FP32:
        while r + ROWS <= rows:
            f32_many(a + r * a_row, a_row, w, c + r * c_row, c_row, words, fresh)
            r += ROWS
        while r < rows:
            f32_two(a + r * a_row, a_row, w, c + r * c_row, c_row, words, fresh)
            r += 2
    elif numbers == BF16:
        while r + ROWS <= rows:
            bf16_many(a + r * a_row, a_row, w, c + r * c_row, c_row, words, fresh)
            r += ROWS
        while r < rows:
            bf16_two(a + r * a_row, a_row, w, c + r * c_row, c_row, words, fresh)
            r += 2
    else:
        while r + ROWS <= rows:
            int8_many(a + r * a_row, a_row, w, c + r * c_row, c_row, words, fresh)
            r += ROWS
        while r < rows:
            int8_two(a + r * a_row, a_row, w, c + r * c_row, c_row, words, fresh)
            r += 2


@compiled
def sin_cos(x: Floats, sin: Floats, cos: Floats) -> None:
    """sin and cos of x (N,), within 1.2e-7 of the truth for phases up to 2**30.

    The phase is reduced in double precision to r in [-pi/4, pi/4] and a quadrant; the Taylor
    series of sin ends at r**9 and that of cos at r**10, whose next terms are below 2e-9 and 2e-10.
    """
    for i in range(x.size):
        wide = float64(x[i])
        turns = np.rint(wide * (1 / _HALF_PI))
        r = float32(wide - turns * _HALF_PI)
        quadrant = int64(turns) & 3
        rr = r * r
        s = float32(1 / 362880) * rr - float32(1 / 5040)
        s = (s * rr + float32(1 / 120)) * rr - float32(1 / 6)
        s = r + r * (s * rr)
        c = float32(1 / 40320) - float32(1 / 3628800) * rr
        c = (c * rr - float32(1 / 720)) * rr + float32(1 / 24)
        c = float32(1) + rr * (c * rr - float32(0.5))
        even = (quadrant & 1) == 0
        from_sin, from_cos = (s, c) if even else (c, s)
        sin[i] = from_sin if quadrant < 2 else -from_sin
        cos[i] = from_cos if (quadrant == 0) | (quadrant == 3) else -from_cos


@compiled
def to_bf16(x: Floats, out: NDArray[np.uint16]) -> None:
    """x (N,) rounded to nearest even."""
    bits = x.view(np.uint32)
    for i in range(bits.size):
        out[i] = (bits[i] + (((bits[i] >> uint32(16)) & uint32(1)) + uint32(0x7FFF))) >> uint32(16)


@compiled
def to_levels(x: Floats, out: NDArray[np.uint8]) -> None:
    """x (N,) in [-1, 1] in steps of 1 / 127, with 128 for zero."""
    for i in range(x.size):
        out[i] = uint8(np.rint(x[i] * float32(127)) + float32(128))
