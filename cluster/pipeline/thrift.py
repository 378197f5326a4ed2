"""Thrift's compact protocol, as far as Parquet's headers and footers need it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

_BYTES = [bytes([number]) for number in range(256)]


class Value(NamedTuple):
    """An encoded value and the four bits that name its type."""

    kind: int
    data: bytes


def varint(number: int) -> bytes:
    """Unsigned, seven bits a byte, the lowest first (ULEB128)."""
    if 0 <= number < 0x80:
        return _BYTES[number]
    if number < 0:
        raise ValueError(f"{number} is negative; an unsigned number is needed")
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def zigzag(number: int) -> bytes:
    """Signed: small numbers of either sign are short."""
    return varint(2 * number if number >= 0 else -2 * number - 1)


def boolean(value: bool) -> Value:
    """A field that is true or false: its type says which."""
    return Value(1 if value else 2, b"")


def i8(number: int) -> Value:
    return Value(3, number.to_bytes(1, "little", signed=True))


def i16(number: int) -> Value:
    return Value(4, zigzag(number))


@lru_cache(1024)  # mostly numbers of the format
def i32(number: int) -> Value:
    return Value(5, zigzag(number))


def i64(number: int) -> Value:
    return Value(6, zigzag(number))


def binary(data: bytes | str) -> Value:
    data = data.encode() if isinstance(data, str) else data
    return Value(8, varint(len(data)) + data)


def array(values: Sequence[Value], kind: int = 12) -> Value:
    """A list of values of one type (not of booleans); kind: the type where it may be empty."""
    kind = values[0].kind if values else kind
    count = len(values)
    head = bytes([count << 4 | kind]) if count < 15 else bytes([0xF0 | kind]) + varint(count)
    return Value(9, head + b"".join(value.data for value in values))


def struct(fields: Mapping[int, Value | None]) -> Value:
    """Fields by their numbers, which ascend by less than 16; None leaves one out."""
    out: list[bytes] = []
    last = 0
    for number, value in fields.items():
        if value is not None:
            out += (_BYTES[(number - last) << 4 | value.kind], value.data)
            last = number
    out.append(b"\0")
    return Value(12, b"".join(out))
