"""From RGB to luminance and chrominance (JFIF), in vector code; the arithmetic is libjpeg's."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from un0.jit import compiled

PIXELS = 16
"""Worked on at once."""

_Value = Any  # of llvmlite, which has no types
_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_BYTES, _VECTOR, _WIDE = (ir.VectorType(kind, PIXELS) for kind in (_I8, _I16, _I32))
# Of red, green and blue, and what is added, in 2^-16; luminance less 128
_FACTORS = (
    (19595, 38470, 7471, 32768 - (128 << 16)),
    (-11059, -21709, 32768, 32767),
    (32768, -27439, -5329, 32767),
)


def _splat(kind: _Value, value: int) -> _Value:
    return ir.Constant(kind, [value] * PIXELS)


def _colours(b: _Value, address: _Value) -> list[_Value]:
    """Red, green and blue of pixels, in words of 32 bits."""

    def part(number: int) -> _Value:
        place = b.add(address, ir.Constant(_I64, number * PIXELS))
        return b.load(b.inttoptr(place, _BYTES.as_pointer()), align=1)

    def mixed(one: _Value, other: _Value, picks: list[int]) -> _Value:
        return b.shuffle_vector(one, other, ir.Constant(ir.VectorType(_I32, len(picks)), picks))

    whole = range(2 * PIXELS)
    first = mixed(part(0), part(1), list(whole))
    last = mixed(part(2), part(2), list(whole))
    found = []
    for colour in range(3):
        picks = [3 * pixel + colour for pixel in range(PIXELS)]
        found.append(b.zext(mixed(first, last, picks), _WIDE))
    return found


@intrinsic  # type: ignore[untyped-decorator]
def _convert(_typing: _Value, _pixels: _Value, _plane: _Value, _apart: _Value) -> Any:
    """(pixels, plane, apart): addresses of bytes and of words of 16 bits; apart: bytes from one
    plane to the next."""

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        pixels, plane, apart = arguments
        colours = _colours(b, pixels)
        for *factors, rest in _FACTORS:
            total = _splat(_WIDE, rest)
            for factor, colour in zip(factors, colours, strict=True):
                total = b.add(total, b.mul(colour, _splat(_WIDE, factor)))
            value = b.trunc(b.ashr(total, _splat(_WIDE, 16)), _VECTOR)
            b.store(value, b.inttoptr(plane, _VECTOR.as_pointer()), align=2)
            plane = b.add(plane, apart)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), build


@compiled
def split(image: NDArray[np.uint8], row: NDArray[np.uint8], planes: NDArray[np.int16]) -> None:
    """Luminance and chrominance, less 128, of an image (H, 3 W) and of what goes on beyond its
    edges: its last column and its last row.

    planes: (3, H', W'), W' a multiple of ``PIXELS``. row: (3 W',), for use here.
    """
    height, width = image.shape
    _, down, across = planes.shape
    pixels, first = np.int64(row.ctypes.data), np.int64(planes.ctypes.data)
    for y in range(down):
        line = image[min(y, height - 1)]
        for i in range(width):
            row[i] = line[i]
        for i in range(width, len(row)):
            row[i] = row[i - 3]
        for x in range(0, across, PIXELS):
            _convert(pixels + 3 * x, first + 2 * (y * across + x), 2 * down * across)
