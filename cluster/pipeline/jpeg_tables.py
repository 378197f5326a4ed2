"""What a JPEG file of quality 95 and 4:4:4 holds beside the image (ITU T.81): the tables of its
header, and the same in the form in which the encoder uses them."""

from __future__ import annotations

import math
import struct
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

QUALITY = 95

# How finely frequencies are quantised at quality 50, by row: T.81, K.1 and K.2
_LUMINANCE = [
    *(16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99),
]
_CHROMINANCE = [
    *(17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99),
    *(24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99),
    *[99] * 32,
]
# Symbols by the lengths of their codes, 1 to 16 bits: T.81, K.3 to K.6
_DC_COUNTS = (
    (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0),
    (0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0),
)
_DC_SYMBOLS = bytes(range(12))
_AC_COUNTS = (
    (0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125),
    (0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119),
)
_AC_SYMBOLS = (
    bytes.fromhex(
        "01020300041105122131410613516107227114328191a1082342b1c11552d1f0"
        "2433627282090a161718191a25262728292a3435363738393a434445464748494a"
        "535455565758595a636465666768696a737475767778797a838485868788898a"
        "92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3c4c5c6"
        "c7c8c9cad2d3d4d5d6d7d8d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
    ),
    bytes.fromhex(
        "000102031104052131061241510761711322328108144291a1b1c109233352f0"
        "156272d10a162434e125f11718191a262728292a35363738393a434445464748"
        "494a535455565758595a636465666768696a737475767778797a828384858687"
        "88898a92939495969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6b7b8b9bac2c3"
        "c4c5c6c7c8c9cad2d3d4d5d6d7d8d9dae2e3e4e5e6e7e8e9eaf2f3f4f5f6f7f8f9fa"
    ),
)

SIZE = 5  # the lowest bits of an entry are the number of the others
Ints = NDArray[np.int32]


class Tables(NamedTuple):
    """Of luminance and chrominance in turn.

    zigzag: (64,), where in a block, row by row, the coefficients lie in the order in which they are
    written. places: the same in bytes, where blocks lie side by side. quotients: uint16 (2, 64, 3),
    by which one is divided: an addend, a factor, a shift. dc (2, 12), ac (2, 256): by symbol, its
    code with room behind it for the bits of the value that follows, as ``bits << SIZE | number``.
    """

    zigzag: Ints
    places: Ints
    quotients: NDArray[np.uint16]
    dc: Ints
    ac: Ints


@cache
def tables(apart: int) -> Tables:
    """apart: bytes from a coefficient to the next of its block."""
    return Tables(
        _zigzag(),
        _zigzag() * np.int32(apart),
        np.stack([_quotients(of) for of in _quantisers()]),
        np.stack([_codes(counts, _DC_SYMBOLS, 12) for counts in _DC_COUNTS]),
        np.stack(
            [
                _codes(counts, symbols, 256)
                for counts, symbols in zip(_AC_COUNTS, _AC_SYMBOLS, strict=True)
            ]
        ),
    )


def header(height: int, width: int) -> bytes:
    """All of a file before the coded image."""
    zigzag = _zigzag()
    parts = [b"\xff\xd8", _segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")]
    for number, of in enumerate(_quantisers()):
        parts.append(_segment(0xDB, bytes([number, *of[zigzag]])))
    frame = struct.pack(">BHHB", 8, height, width, 3)
    parts.append(_segment(0xC0, frame + bytes([1, 0x11, 0, 2, 0x11, 1, 3, 0x11, 1])))
    for number in range(2):
        dc = bytes([number, *_DC_COUNTS[number]]) + _DC_SYMBOLS
        ac = bytes([16 + number, *_AC_COUNTS[number]]) + _AC_SYMBOLS[number]
        parts += [_segment(0xC4, dc), _segment(0xC4, ac)]
    parts.append(_segment(0xDA, bytes([3, 1, 0, 2, 0x11, 3, 0x11, 0, 63, 0])))
    return b"".join(parts)


def _segment(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, 2 + len(data)) + data


def _zigzag() -> Ints:
    def place(at: int) -> tuple[int, int]:
        row, column = divmod(at, 8)
        diagonal = row + column
        return diagonal, row if diagonal % 2 else column

    return np.array(sorted(range(64), key=place), np.int32)


def _quantisers() -> tuple[Ints, Ints]:
    """(64,) of luminance and of chrominance, row by row."""
    luminance, chrominance = (
        np.clip((np.array(of, np.int32) * (200 - 2 * QUALITY) + 50) // 100, 1, 255)
        for of in (_LUMINANCE, _CHROMINANCE)
    )
    return luminance, chrominance


def _quotients(quantiser: Ints) -> NDArray[np.uint16]:
    """(64, 3) of division as libjpeg-turbo does it: a sum, the upper half of a product, a shift.

    The fast DCT leaves factors in the coefficients; they are divided out at once.
    """
    one = np.array([1.0, *(math.sqrt(2) * math.cos(k * math.pi / 16) for k in range(1, 8))])
    scales = np.rint(np.outer(one, one) * 2**14).astype(np.int64).reshape(64)
    found = np.empty((64, 3), np.uint16)
    for at, divisor in enumerate((quantiser * scales + 1024) >> 11):
        shift = int(divisor).bit_length() - 1
        factor, rest = divmod(1 << (16 + shift), int(divisor))
        addend = int(divisor) // 2
        if rest == 0:
            factor, shift = factor >> 1, shift - 1
        elif rest <= addend:
            addend += 1
        else:
            factor += 1
        found[at] = addend, factor, shift
    return found


def _codes(counts: tuple[int, ...], symbols: bytes, count_of_symbols: int) -> Ints:
    """(symbols,): entries by symbol, 0 where there is none."""
    found = np.zeros(count_of_symbols, np.int32)
    code, at = 0, 0
    for length, count in enumerate(counts, 1):
        for symbol in symbols[at : at + count]:
            size = symbol & 15  # of the value that follows
            found[symbol] = (code << size) << SIZE | (length + size)
            code += 1
        at += count
        code <<= 1
    return found
