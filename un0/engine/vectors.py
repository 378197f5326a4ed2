"""Vector code for CPUs that a compiler would not find by itself, as numba intrinsics.

Products are sums of ``a[k] * w[k]`` taken in the order of k, one fused multiply-add each, for
every element alike. That order is part of the result and nothing else is: not how many rows or
columns are worked on at once, nor the width of the vectors, nor who computes the neighbours. So
an image has the same bytes in every batch, on every number of threads and on every processor.

Addresses and strides are in bytes. A word is 32 bits of one row: a float32, two bfloat16 or four
8-bit integers.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils, config
from numba.extending import intrinsic

PANEL = 32  # columns of weights that lie side by side
_I16, _I32, _I64 = (ir.IntType(bits) for bits in (16, 32, 64))
_F32 = ir.FloatType()


def has_cpu_features(*names: str) -> bool:
    """Whether compiled code may use these features, by LLVM's names."""
    if config.CPU_FEATURES is not None:
        enabled = config.CPU_FEATURES.split(",")
        return all(f"+{name}" in enabled for name in names)
    features = binding.get_host_cpu_features()
    return all(features.get(name, False) for name in names)


LANES = 16 if has_cpu_features("avx512f") else 8
# Rows worked on at once, and vectors of columns: their accumulators and one row of weights fill the
# vector registers, and the second cache, which weights come from, keeps up.
ROWS, VECTORS = (8 if LANES == 16 else 6), 2
HAS_FMA = not platform.machine().startswith(("x86", "AMD64", "i")) or has_cpu_features("fma")
HAS_BF16 = has_cpu_features("avx512f", "avx512bf16")
HAS_INT8 = has_cpu_features("avx512f", "avx512vnni")
_VECTOR = ir.VectorType(_F32, LANES)
_INTS = ir.VectorType(_I32, LANES)
_Value = Any  # of llvmlite, which has no types
_Dot = Callable[[_Value, _Value, _Value, _Value], _Value]


class _BFloat16(ir.Type):  # type: ignore[misc]
    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloat16)

    def __hash__(self) -> int:
        return hash(_BFloat16)


def _int(value: int) -> _Value:
    return ir.Constant(_I64, value)


def _at(b: _Value, address: _Value, offset: _Value, kind: _Value) -> _Value:
    return b.inttoptr(b.add(address, offset), kind.as_pointer())


def _load(b: _Value, address: _Value, offset: _Value, kind: _Value = _VECTOR) -> _Value:
    return b.load(_at(b, address, offset, kind), align=1)


def _store(b: _Value, value: _Value, address: _Value, offset: _Value) -> None:
    b.store(value, _at(b, address, offset, value.type), align=1)


def _splat(b: _Value, scalar: _Value) -> _Value:
    vector = ir.VectorType(scalar.type, LANES)
    undefined = ir.Constant(vector, ir.Undefined)
    first = b.insert_element(undefined, scalar, ir.Constant(_I32, 0))
    return b.shuffle_vector(first, undefined, ir.Constant(_INTS, None))


def _constant(value: float) -> _Value:
    return ir.Constant(_VECTOR, [value] * LANES)


def _call(b: _Value, name: str, result: _Value, *arguments: _Value) -> _Value:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)


# --- products ---


def _dot_f32(b: _Value, a: _Value, w: _Value, total: _Value) -> _Value:
    a, w = b.bitcast(a, _VECTOR), b.bitcast(w, _VECTOR)
    return _call(b, f"llvm.fma.v{LANES}f32", _VECTOR, a, w, total)


def _dot_bf16(b: _Value, a: _Value, w: _Value, total: _Value) -> _Value:
    pairs = ir.VectorType(_BFloat16(), 2 * LANES)
    a, w = b.bitcast(a, pairs), b.bitcast(w, pairs)
    return _call(b, "llvm.x86.avx512bf16.dpbf16ps.512", _VECTOR, total, a, w)


def _dot_int8(b: _Value, a: _Value, w: _Value, total: _Value) -> _Value:
    total = b.bitcast(total, _INTS)
    return b.bitcast(_call(b, "llvm.x86.avx512.vpdpbusd.512", _INTS, total, a, w), _VECTOR)


def _product(rows: int, dot: _Dot, vectors: int) -> Any:
    """An intrinsic (a, a_row, w, c, c_row, words, fresh): c (rows, PANEL) = or += a @ w.

    a: the first row, ``a_row`` bytes to the next. w (words, PANEL). fresh: 0 adds to c.
    vectors: of columns at once; the panel is gone through as often as that takes.
    """

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        for first in range(0, PANEL // LANES, vectors):
            _columns(b, dot, rows, range(first, first + vectors), *arguments)
        return context.get_dummy_value()

    def typed(_context: _Value, a, a_row, w, c, c_row, words, fresh):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return types.void(*[types.int64] * 7), build

    return intrinsic(typed)


def _columns(
    b: _Value, dot: _Dot, rows: int, columns: range,
    a: _Value, a_row: _Value, w: _Value, c: _Value, c_row: _Value, words: _Value, fresh: _Value,
) -> None:  # fmt: skip
    """Some of a panel's vectors of columns, of all the rows."""
    a_rows = [b.add(a, b.mul(a_row, _int(r))) for r in range(rows)]
    c_rows = [b.add(c, b.mul(c_row, _int(r))) for r in range(rows)]
    cells = [(r, j) for r in range(rows) for j in columns]
    before = b.block
    adding, step, end = (b.append_basic_block(name) for name in ("adding", "step", "end"))
    b.cbranch(b.icmp_signed("!=", fresh, _int(0)), step, adding)
    b.position_at_end(adding)
    held = {(r, j): _load(b, c_rows[r], _int(4 * LANES * j)) for r, j in cells}
    b.branch(step)

    b.position_at_end(step)
    k = b.phi(_I64)
    totals = {cell: b.phi(_VECTOR) for cell in cells}
    row_of_w = b.add(w, b.mul(k, _int(4 * PANEL)))
    weights = {j: _load(b, row_of_w, _int(4 * LANES * j), _INTS) for j in columns}
    offset = b.mul(k, _int(4))
    sums = {}
    for r in range(rows):
        word = _splat(b, _load(b, a_rows[r], offset, _I32))
        for j in columns:
            sums[r, j] = dot(b, word, weights[j], totals[r, j])
    following = b.add(k, _int(1))
    for block, count in ((before, _int(0)), (adding, _int(0)), (step, following)):
        k.add_incoming(count, block)
    for cell, total in totals.items():
        total.add_incoming(ir.Constant(_VECTOR, None), before)
        total.add_incoming(held[cell], adding)
        total.add_incoming(sums[cell], step)
    b.cbranch(b.icmp_signed("<", following, words), step, end)

    b.position_at_end(end)
    for r, j in cells:
        _store(b, sums[r, j], c_rows[r], _int(4 * LANES * j))


_SHAPES = ((ROWS, VECTORS), (2, PANEL // LANES))
_DOT_BF16 = _dot_bf16 if HAS_BF16 else _dot_f32  # never called where it is not the former
_DOT_INT8 = _dot_int8 if HAS_INT8 else _dot_f32
f32_many, f32_two = (_product(rows, _dot_f32, v) for rows, v in _SHAPES)
bf16_many, bf16_two = (_product(rows, _DOT_BF16, v) for rows, v in _SHAPES)
int8_many, int8_two = (_product(rows, _DOT_INT8, v) for rows, v in _SHAPES)


# --- the convolutions' transforms (``un0.engine.patches``) ---

_Grid = list[list[_Value]]


def _both_ways(along: Callable[[list[_Value]], list[_Value]], grid: _Grid) -> _Grid:
    """``along`` applied to the columns of a grid and then to its rows."""
    columns = [along(list(column)) for column in zip(*grid, strict=True)]
    return [along(list(row)) for row in zip(*columns, strict=True)]


def _bf16_bits(b: _Value, x: _Value) -> _Value:
    """x rounded to nearest even bfloat16, as 16-bit integers."""
    bits = b.bitcast(x, _INTS)
    shift = ir.Constant(_INTS, [16] * LANES)
    odd = b.and_(b.lshr(bits, shift), ir.Constant(_INTS, [1] * LANES))
    rounded = b.add(bits, b.add(odd, ir.Constant(_INTS, [0x7FFF] * LANES)))
    return b.trunc(b.lshr(rounded, shift), ir.VectorType(_I16, LANES))


def _gather(side: int, along: Callable[..., list[_Value]], narrow: bool) -> Any:
    """An intrinsic (x, x_row, x_pixel, v, v_point, channels): v = the transformed patch at x.

    x: the corner of ``side`` by ``side`` pixels. v: one point's channels, ``v_point`` bytes to the
    next point's. narrow: v is bfloat16.
    """

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        x, x_row, x_pixel, v, v_point, channels = arguments
        with cgutils.for_range(b, b.udiv(channels, _int(LANES))) as loop:
            offset = b.mul(loop.index, _int(4 * LANES))
            grid = []
            for r in range(side):
                row = b.add(x, b.mul(x_row, _int(r)))
                pixels = [b.add(row, b.mul(x_pixel, _int(p))) for p in range(side)]
                grid.append([_load(b, pixel, offset) for pixel in pixels])
            points = _both_ways(lambda line: along(b, *line), grid)
            if narrow:
                offset = b.mul(loop.index, _int(2 * LANES))
            for index, value in enumerate(value for row in points for value in row):
                kept = _bf16_bits(b, value) if narrow else value
                _store(b, kept, b.add(v, b.mul(v_point, _int(index))), offset)
        return context.get_dummy_value()

    def typed(_context: _Value, x, x_row, x_pixel, v, v_point, channels):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return types.void(*[types.int64] * 6), build

    return intrinsic(typed)


def _scatter(side: int, along: Callable[..., list[_Value]]) -> Any:
    """An intrinsic (m, m_point, bias, y, y_row, y_pixel): y = LeakyReLU of two by two pixels.

    m: the products of one point, ``m_point`` bytes to the next point's; all PANEL channels.
    """

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        m, m_point, bias, y, y_row, y_pixel = arguments
        for j in range(PANEL // LANES):
            offset = _int(4 * LANES * j)
            points = [b.add(m, b.mul(m_point, _int(p))) for p in range(side * side)]
            values = [_load(b, point, offset) for point in points]
            grid = [values[side * r : side * (r + 1)] for r in range(side)]
            addend = _load(b, bias, offset)
            for r, row in enumerate(_both_ways(lambda line: along(b, *line), grid)):
                for p, value in enumerate(row):
                    total = b.fadd(value, addend)
                    small = b.fmul(total, _constant(0.2))
                    leaky = b.select(b.fcmp_ordered(">", total, small), total, small)
                    pixel = b.add(b.mul(y_row, _int(r)), b.mul(y_pixel, _int(p)))
                    _store(b, leaky, b.add(y, pixel), offset)
        return context.get_dummy_value()

    def typed(_context: _Value, m, m_point, bias, y, y_row, y_pixel):  # type: ignore[no-untyped-def]  # noqa: ARG001
        return types.void(*[types.int64] * 6), build

    return intrinsic(typed)


def _enlarged_points(b: _Value, x0: _Value, x1: _Value, x2: _Value) -> list[_Value]:
    return [x1, b.fsub(x1, x0), b.fsub(x2, x1)]


def _enlarged_pixels(b: _Value, m0: _Value, m1: _Value, m2: _Value) -> list[_Value]:
    return [b.fadd(m0, m1), b.fadd(m0, m2)]


def _plain_points(b: _Value, x0: _Value, x1: _Value, x2: _Value, x3: _Value) -> list[_Value]:
    return [b.fsub(x0, x2), b.fadd(x1, x2), b.fsub(x2, x1), b.fsub(x1, x3)]


def _plain_pixels(b: _Value, m0: _Value, m1: _Value, m2: _Value, m3: _Value) -> list[_Value]:
    return [b.fadd(b.fadd(m0, m1), m2), b.fsub(b.fsub(m1, m2), m3)]


enlarged_in, enlarged_in_bf16 = (_gather(3, _enlarged_points, narrow) for narrow in (False, True))
plain_in, plain_in_bf16 = (_gather(4, _plain_points, narrow) for narrow in (False, True))
enlarged_out, plain_out = _scatter(3, _enlarged_pixels), _scatter(4, _plain_pixels)
