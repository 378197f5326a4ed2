"""From samples to quantised coefficients, of many blocks at once, in vector code.

The arithmetic is that of libjpeg-turbo's fast DCT in words of 16 bits, to the last bit (AAN: Arai,
Agui and Nakajima 1988): the factors that it leaves are divided out with the quantisers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from cluster.pipeline.words import Int
from un0.jit import compiled

LANES = 16
"""Blocks at once. Their samples lie side by side: int16 (64, LANES), a block's row by row."""

_STEP = 2 * LANES  # bytes from a sample to the next of its block
_Value = Any  # of llvmlite, which has no types
_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_VECTOR, _WIDE, _MASKS = (ir.VectorType(kind, LANES) for kind in (_I16, _I32, _I64))
_HALF_ROOT, _SINE, _LOW, _HIGH = 181, 98, 139, 334  # 0.7071, 0.3827, 0.5412, 1.3066, in 2^-8


def _splat(kind: _Value, value: int) -> _Value:
    return ir.Constant(kind, [value] * LANES)


def _spread(b: _Value, value: _Value) -> _Value:
    """A vector of one word of 16 bits, from an int64."""
    none = ir.Constant(_VECTOR, ir.Undefined)
    one = b.insert_element(none, b.trunc(value, _I16), ir.Constant(_I32, 0))
    return b.shuffle_vector(one, none, _splat(_WIDE, 0))


def _place(b: _Value, address: _Value, kind: _Value) -> _Value:
    return b.inttoptr(address, kind.as_pointer())


def _upper(b: _Value, one: _Value, other: _Value, widen: Any) -> _Value:
    """The upper halves of the products."""
    product = b.mul(widen(one, _WIDE), widen(other, _WIDE))
    return b.trunc(b.lshr(product, _splat(_WIDE, 16)), _VECTOR)


@intrinsic  # type: ignore[untyped-decorator]
def _dct(_typing: _Value, _first: _Value, _step: _Value) -> Any:
    """(first, step): the DCT of eight samples of each block, in place; step: bytes between them."""

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        first, step = arguments
        places = [
            _place(b, b.add(first, b.mul(step, ir.Constant(_I64, k))), _VECTOR) for k in range(8)
        ]
        for place, value in zip(places, _transformed(b, places), strict=True):
            b.store(value, place, align=2)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build


def _transformed(b: _Value, places: list[_Value]) -> list[_Value]:
    def times(value: _Value, factor: int) -> _Value:
        four = b.shl(value, _splat(_VECTOR, 2))
        return _upper(b, four, _splat(_VECTOR, factor << 6), b.sext)

    s = [b.load(place, align=2) for place in places]
    sums = [b.add(s[k], s[7 - k]) for k in range(4)]
    apart = [b.sub(s[k], s[7 - k]) for k in range(4)]
    outer, inner = b.add(sums[0], sums[3]), b.add(sums[1], sums[2])
    outer_apart, inner_apart = b.sub(sums[0], sums[3]), b.sub(sums[1], sums[2])
    turned = times(b.add(inner_apart, outer_apart), _HALF_ROOT)
    low, middle = b.add(apart[3], apart[2]), b.add(apart[2], apart[1])
    high = b.add(apart[1], apart[0])
    both = times(b.sub(low, high), _SINE)
    low, high = b.add(times(low, _LOW), both), b.add(times(high, _HIGH), both)
    middle = times(middle, _HALF_ROOT)
    near, far = b.add(apart[0], middle), b.sub(apart[0], middle)
    return [
        b.add(outer, inner),
        b.add(near, high),
        b.add(outer_apart, turned),
        b.sub(far, low),
        b.sub(outer, inner),
        b.add(far, low),
        b.sub(outer_apart, turned),
        b.sub(near, high),
    ]


@intrinsic  # type: ignore[untyped-decorator]
def _quantise(
    _typing: _Value,
    _at: _Value,
    _addend: _Value,
    _factor: _Value,
    _shift: _Value,
    _masks: _Value,
    _bit: _Value,
) -> Any:
    """(at, addend, factor, shift, masks, bit): one coefficient of each block, in place; in the mask
    of each where it is not 0, the bit is set."""

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        at, addend, factor, shift, masks, bit = arguments
        place = _place(b, at, _VECTOR)
        value = b.load(place, align=2)
        sign = b.ashr(value, _splat(_VECTOR, 15))
        size = b.add(b.sub(b.xor(value, sign), sign), _spread(b, addend))
        size = b.lshr(_upper(b, size, _spread(b, factor), b.zext), _spread(b, shift))
        b.store(b.sub(b.xor(size, sign), sign), place, align=2)
        none = ir.Constant(_MASKS, ir.Undefined)
        bits = b.insert_element(none, bit, ir.Constant(_I32, 0))
        bits = b.shuffle_vector(bits, none, _splat(_WIDE, 0))
        some = b.icmp_unsigned("!=", size, _splat(_VECTOR, 0))
        place = _place(b, masks, _MASKS)
        more = b.select(some, bits, _splat(_MASKS, 0))
        b.store(b.or_(b.load(place, align=8), more), place, align=8)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 6), build


@compiled
def transform(samples: Int, quotients: Any, bits: Any, masks: Int) -> None:
    """Make quantised coefficients of samples, in place.

    samples: address of int16 (64, LANES), from -128 to 127. quotients: uint16 (64, 3), see
    ``jpeg_tables``. bits: int64 (64,), for each coefficient a bit. masks: address of int64
    (LANES,): of each block, the bits of coefficients that are not 0.
    """
    for y in range(8):
        _dct(samples + 8 * y * _STEP, _STEP)
    for x in range(8):
        _dct(samples + x * _STEP, 8 * _STEP)
    for at in range(64):
        addend, factor, shift = quotients[at, 0], quotients[at, 1], quotients[at, 2]
        _quantise(
            samples + at * _STEP,
            np.int64(addend),
            np.int64(factor),
            np.int64(shift),
            masks,
            bits[at],
        )
