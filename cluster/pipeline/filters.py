"""PNG's filters (RFC 2083, 6) in vector code: of each byte what its neighbours do not say of it."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numpy.typing import NDArray

from cluster.pipeline.words import Int
from un0.jit import compiled

Bytes = NDArray[np.uint8]
NONE, SUB, UP, AVERAGE, PAETH = range(5)
LANES = 32  # bytes worked on at once; so many are written beyond the last row, at most
EDGE = 3  # bytes of black to the left of a padded row

_EVERY = 4  # rows of which one is tried
_ANY = 4  # cost of a byte that is no part of a run, at least
_Value = Any  # of llvmlite, which has no types
_VECTOR, _WIDE = ir.VectorType(ir.IntType(8), LANES), ir.VectorType(ir.IntType(16), LANES)
_I64 = ir.IntType(64)


def _splat(value: int) -> _Value:
    return ir.Constant(_VECTOR, [value] * LANES)


def _load(b: _Value, address: _Value, offset: int) -> _Value:
    place = b.add(address, ir.Constant(_I64, offset))
    return b.load(b.inttoptr(place, _VECTOR.as_pointer()), align=1)


def _apart(b: _Value, one: _Value, other: _Value) -> _Value:
    below = b.icmp_unsigned("<", one, other)
    return b.select(below, b.sub(other, one), b.sub(one, other))


def _paeth(b: _Value, left: _Value, above: _Value, corner: _Value) -> _Value:
    """Of the three the one nearest to left + above - corner, which may not fit a byte."""
    to_left, to_above = _apart(b, above, corner), _apart(b, left, corner)
    # Unless the corner lies between them, it is farther off than either
    between = b.xor(b.icmp_unsigned("<", above, corner), b.icmp_unsigned("<", left, corner))
    to_corner = b.select(between, _apart(b, to_left, to_above), _splat(255))
    rest = b.select(b.icmp_unsigned("<=", to_above, to_corner), above, corner)
    nearest = b.and_(
        b.icmp_unsigned("<=", to_left, to_above), b.icmp_unsigned("<=", to_left, to_corner)
    )
    return b.select(nearest, left, rest)


def _filtered(b: _Value, kind: int, here: _Value, up: _Value) -> _Value:
    """LANES bytes of a padded row filtered, from the addresses of their left neighbours."""
    value, left = _load(b, here, EDGE), _load(b, here, 0)
    above, corner = _load(b, up, EDGE), _load(b, up, 0)
    if kind == NONE:
        return value
    if kind == SUB:
        return b.sub(value, left)
    if kind == UP:
        return b.sub(value, above)
    if kind == AVERAGE:
        half = b.lshr(b.xor(left, above), _splat(1))
        return b.sub(value, b.add(b.and_(left, above), half))
    return b.sub(value, _paeth(b, left, above, corner))


def _writer(kind: int) -> Any:
    """An intrinsic (here, up, out): filter LANES bytes."""

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        here, up, out = arguments
        place = b.inttoptr(out, _VECTOR.as_pointer())
        b.store(_filtered(b, kind, here, up), place, align=1)
        return context.get_dummy_value()

    def typed(_typing: _Value, _here: _Value, _up: _Value, _out: _Value) -> Any:
        return types.void(types.int64, types.int64, types.int64), build

    return intrinsic(typed)


def _scorer(kind: int) -> Any:
    """An intrinsic (here, up) -> int64: about how costly LANES filtered bytes are.

    One like that of the pixel before is free, as a part of a run; others cost the more, the farther
    they are from 0.
    """

    def build(_context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        value = _filtered(b, kind, *arguments)
        before = _filtered(b, kind, *(b.sub(one, ir.Constant(_I64, EDGE)) for one in arguments))
        cost = b.add(_apart_from_zero(b, value), _splat(_ANY))
        cost = b.select(b.icmp_unsigned("==", value, before), _splat(0), cost)
        size = b.zext(cost, _WIDE)
        reduce = ir.FunctionType(_WIDE.element, [_WIDE])
        name = f"llvm.vector.reduce.add.v{LANES}i16"
        return b.zext(b.call(cgutils.get_or_insert_function(b.module, reduce, name), [size]), _I64)

    def typed(_typing: _Value, _here: _Value, _up: _Value) -> Any:
        return types.int64(types.int64, types.int64), build

    return intrinsic(typed)


def _apart_from_zero(b: _Value, value: _Value) -> _Value:
    other = b.sub(_splat(0), value)
    return b.select(b.icmp_unsigned("<", value, other), value, other)


_none, _sub, _up, _average, _paeths = (_writer(kind) for kind in range(5))
_score_none, _score_sub, _score_up, _score_average, _score_paeth = map(_scorer, range(5))


@compiled
def pad(image: Bytes, padded: Bytes) -> None:
    """Copy an image (H, 3 W) into the rows below the first of (H + 1, EDGE + 3 W)."""
    for y in range(len(image)):
        row = padded[y + 1, EDGE:]
        for i in range(len(row)):
            row[i] = image[y, i]


@compiled
def choose(first: Int, height: Int, stride: Int) -> Int:
    """The filter that leaves least, judging by some rows. first: as of ``apply``."""
    none, sub, up, average, paeth = 0, 0, 0, 0, 0
    for y in range(min(1, height - 1), height, _EVERY):
        row = first + y * stride
        for here in range(row, row + stride - EDGE, LANES):
            above = here - stride
            none += _score_none(here, above)
            sub += _score_sub(here, above)
            up += _score_up(here, above)
            average += _score_average(here, above)
            paeth += _score_paeth(here, above)
    least = min(none, sub, up, average, paeth)
    if least == sub:
        return SUB
    if least == up:
        return UP
    if least == none:
        return NONE
    return AVERAGE if least == average else PAETH


@compiled
def apply(kind: Int, first: Int, height: Int, stride: Int, rows: Int) -> None:
    """Write an image's filtered rows, each after its filter's number.

    first: address of its first row, padded; a row and ``EDGE`` bytes before it are zeros. stride:
    bytes from row to row there. rows: address; from row to row there are 1 + 3 W bytes, and LANES
    after the last are overwritten.
    """
    width = stride - EDGE
    for y in range(height):
        row, out = first + y * stride, rows + y * (width + 1)
        _number(out, kind)
        out += 1
        if kind == NONE:
            for i in range(0, width, LANES):
                _none(row + i, row + i - stride, out + i)
        elif kind == SUB:
            for i in range(0, width, LANES):
                _sub(row + i, row + i - stride, out + i)
        elif kind == UP:
            for i in range(0, width, LANES):
                _up(row + i, row + i - stride, out + i)
        elif kind == AVERAGE:
            for i in range(0, width, LANES):
                _average(row + i, row + i - stride, out + i)
        else:
            for i in range(0, width, LANES):
                _paeths(row + i, row + i - stride, out + i)


@intrinsic  # type: ignore[untyped-decorator]
def _number(_typing: _Value, _out: _Value, _kind: _Value) -> Any:
    """(out, kind): write one byte."""

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        byte = ir.IntType(8)
        b.store(b.trunc(arguments[1], byte), b.inttoptr(arguments[0], byte.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), build
