"""Words of memory at any address, and single bits of them, for compiled loops.

An address is an integer, ``array.ctypes.data`` plus an offset: no index is checked or wrapped
around. Whoever takes it keeps the array alive. Words are little-endian on every machine.
"""

from __future__ import annotations

import sys
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

Int = Any  # a whole number of 64 bits in a compiled loop
_Value = Any  # of llvmlite, which has no types
_I1, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (1, 16, 32, 64))


def _call(b: _Value, name: str, *arguments: _Value) -> _Value:
    kind = ir.FunctionType(arguments[0].type, [argument.type for argument in arguments])
    return b.call(cgutils.get_or_insert_function(b.module, kind, name), arguments)


def _little(b: _Value, word: _Value) -> _Value:
    return word if sys.byteorder == "little" else _call(b, f"llvm.bswap.i{word.type.width}", word)


def _at(b: _Value, address: _Value, kind: _Value) -> _Value:
    return b.inttoptr(address, kind.as_pointer())


def _loader(kind: _Value) -> Any:
    def build(_context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        word = b.load(_at(b, arguments[0], kind), align=1)
        return b.zext(_little(b, word), _I64) if kind is _I32 else _little(b, word)

    def typed(_typing: _Value, _address: _Value) -> Any:
        return types.uint64(types.int64), build

    return intrinsic(typed)


load32 = _loader(_I32)  # (address) -> uint64
load64 = _loader(_I64)  # (address) -> uint64


@intrinsic  # type: ignore[untyped-decorator]
def load16_signed(_typing: _Value, _address: _Value) -> Any:
    """(address) -> int64"""

    def build(_context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        word = b.load(_at(b, arguments[0], _I16), align=1)
        return b.sext(_little(b, word), _I64)

    return types.int64(types.int64), build


@intrinsic  # type: ignore[untyped-decorator]
def store64(_typing: _Value, _address: _Value, _word: _Value) -> Any:
    """(address, uint64)"""

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        address, word = arguments
        b.store(_little(b, word), _at(b, address, _I64), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def store64_big(_typing: _Value, _address: _Value, _word: _Value) -> Any:
    """(address, uint64): its highest byte first"""

    def build(context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        address, word = arguments
        big = word if sys.byteorder == "big" else _call(b, "llvm.bswap.i64", word)
        b.store(big, _at(b, address, _I64), align=1)
        return context.get_dummy_value()

    return types.void(types.int64, types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def trailing_zeros(_typing: _Value, _word: _Value) -> Any:
    """(uint64 but 0) -> int64: how many bits below the lowest that is set."""

    def build(_context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        kind = ir.FunctionType(_I64, [_I64, _I1])
        count = cgutils.get_or_insert_function(b.module, kind, "llvm.cttz.i64")
        return b.call(count, [arguments[0], ir.Constant(_I1, 1)])

    return types.int64(types.uint64), build


@intrinsic  # type: ignore[untyped-decorator]
def reversed_bits(_typing: _Value, _word: _Value) -> Any:
    """(uint64) -> uint64: the lowest bit first becomes the highest."""

    def build(_context: _Value, b: _Value, _signature: _Value, arguments: _Value) -> _Value:
        return _call(b, "llvm.bitreverse.i64", arguments[0])

    return types.uint64(types.uint64), build
