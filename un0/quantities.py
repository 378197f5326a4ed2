"""Counts, durations, energies, powers and times as people write them, for flags and files alike.

Every parser takes text, or a number as a file may hold it, and raises ValueError with the fix.
Whatever could be read in two ways that differ by a factor is refused.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

_PLAIN = r"(?:[0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+)"
_NUMBER = rf"{_PLAIN}(?:e[+-]?[0-9]{{1,3}})?"
_SPACED = r"[0-9]{1,3}(?:[ \u00a0\u202f][0-9]{3})+"  # 1 000 000
_COMMAS = r"[0-9]{1,3}(?:,[0-9]{3})+"

_COUNT = re.compile(
    rf"([+-]?)({_SPACED}|{_COMMAS}|{_NUMBER})\s*(k|M|G|thousand|million)?", re.IGNORECASE
)
_MULTIPLES = {"": 1, "k": 10**3, "K": 10**3, "thousand": 10**3, "M": 10**6, "million": 10**6,
              "G": 10**9}  # fmt: skip
_POINT_FROM = 1000  # below it, 1.000 may be one, or a thousand where a point groups digits

_SPANS_S = (
    ("w|weeks?", 604_800),
    ("d|days?", 86_400),
    ("h|hrs?|hours?", 3600),
    ("m|mins?|minutes?", 60),
    ("s|secs?|seconds?", 1),
)
_DURATION = re.compile(
    "".join(rf"(?:({_NUMBER})\s*(?:{unit})(?:,?\s*(?=[0-9.])|$))?" for unit, _ in _SPANS_S),
    re.IGNORECASE,
)
_ISO_DURATION = re.compile(
    rf"P(?:({_PLAIN})W)?(?:({_PLAIN})D)?(?:T(?=.)(?:({_PLAIN})H)?(?:({_PLAIN})M)?(?:({_PLAIN})S)?)?",
    re.IGNORECASE,
)
_CLOCK = re.compile(r"([0-9]{1,3}):([0-9]{2})(?::([0-9]{2}))?")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")

_ENERGY = re.compile(rf"({_SPACED}|{_NUMBER})\s*([a-z-]*)", re.IGNORECASE)
# Units whose case says nothing, in lower case; and those whose M would be milli in lower case.
_JOULES = {
    "": 1, "j": 1, "joule": 1, "joules": 1,
    "kj": 10**3, "kilojoule": 10**3, "kilojoules": 10**3,
    "megajoule": 10**6, "megajoules": 10**6, "gj": 10**9,
    "wh": 3600, "watt-hour": 3600, "watt-hours": 3600,
    "kwh": 3_600_000, "kilowatt-hour": 3_600_000, "kilowatt-hours": 3_600_000,
}  # fmt: skip
_MEGA = {"mj": ("MJ", 10**6), "mwh": ("MWh", 3_600_000_000)}

_WATTS = {"": 1, "w": 1, "watt": 1, "watts": 1, "kw": 1000, "kilowatt": 1000, "kilowatts": 1000,
          "megawatt": 10**6, "megawatts": 10**6}  # fmt: skip

_HOW_COUNT = "write for example 1000, 1e6, 250k, 1.5M or 1,000,000"
_HOW_DURATION = "write seconds, or for example 90s, 15m, 2h30m, 1d, '2 hours' or PT2H"
_HOW_POWER = "write watts, or for example 500W, 1.2kW or 2 MW"
_HOW_ENERGY = "write joules, or for example 500 J, 2 kJ, 3 MJ, 20 Wh or 1.5 kWh"


def parse_count(value: Any) -> int:
    """The whole number of ``1000``, ``1e6``, ``250k``, ``1.5M``, ``1_000_000``, ``1,000,000`` or
    ``1 000 000``; also of a number of a file, such as 1e6."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if isinstance(value, float):
        return _whole_of_point(value)
    text = value.strip() if isinstance(value, str) else ""
    match = _COUNT.fullmatch(text)
    if match is None:
        raise _refusal("not a whole number", text, _HOW_COUNT)
    sign, digits, suffix = match[1], match[2], match[3] or ""
    multiple = _MULTIPLES.get(suffix if len(suffix) < 2 else suffix.lower())
    if multiple is None:
        raise ValueError(f"{suffix!r} is not a suffix of counts; write {digits}{suffix.upper()}")
    number = Fraction(re.sub("[_, \u00a0\u202f]", "", digits)) * multiple
    if number.denominator != 1:
        raise ValueError(f"not a whole number; {_HOW_COUNT}")
    if "." in digits and not suffix and "e" not in digits.lower():
        return _whole_of_point(float(sign + str(int(number))))
    return -int(number) if sign == "-" else int(number)


def _whole_of_point(value: float) -> int:
    """The whole number of one that was written with a point or an exponent."""
    if not value.is_integer():
        raise ValueError(f"not a whole number; {_HOW_COUNT}")
    if abs(value) >= 2**53:
        raise ValueError("too large to be exact as written; write all its digits")
    if 0 < abs(value) < _POINT_FROM:
        raise ValueError(f"a point may group thousands; write {value:.0f} or {value * 1000:.0f}")
    return int(value)


def parse_duration_s(value: Any) -> float:
    """Seconds, more than 0, of ``90``, ``90s``, ``2h30m``, ``2 hours 30 min``, ``1d12h``, ``PT2H``
    or a number."""
    if not isinstance(value, str):
        return _positive(value, "a duration", _HOW_DURATION)
    text = value.strip()
    match = _DURATION.fullmatch(text) or _ISO_DURATION.fullmatch(text)
    if match is not None and any(match.groups()):
        parts = zip(match.groups(), _SPANS_S, strict=True)
        return _positive(sum(_exact(n) * each for n, (_, each) in parts if n), "a duration", "")
    if re.fullmatch(_NUMBER, text, re.IGNORECASE):
        return _positive(_exact(text), "a duration", "")
    raise _refusal("not a duration", text, _duration_fix(text))


def _duration_fix(text: str) -> str:
    """How to write what this text probably means."""
    if clock := _CLOCK.fullmatch(text):
        first, second, third = clock.groups()
        if third:
            return f"write {first}h{second}m{third}s"
        return f"write {first}h{second}m or {first}m{second}s"
    if re.fullmatch(r"P[0-9.]+[YM].*", text, re.IGNORECASE):
        return "years and months vary in length; write days, as in P30D"
    if re.search(r"[a-z]\s*[0-9]+$", text, re.IGNORECASE):
        return "its last number lacks a unit; write for example 1h30m"
    return _HOW_DURATION


def parse_energy_j(value: Any) -> float:
    """Joules, more than 0, of ``500``, ``500 J``, ``2 kJ``, ``3 MJ``, ``20 Wh``, ``1.5 kWh`` or a
    number. Of units with an M only exactly MJ and MWh are read: mJ is a thousand million times
    less, and one key away."""
    if not isinstance(value, str):
        return _positive(value, "an energy", _HOW_ENERGY)
    text = value.strip()
    match = _ENERGY.fullmatch(text)
    if match is None:
        raise _refusal("not an energy", text, _HOW_ENERGY)
    digits, unit = match[1], match[2]
    mega, each = _MEGA.get(unit.lower(), (unit, _JOULES.get(unit.lower())))
    if unit != mega:
        raise ValueError(
            f"not an energy: {unit!r} could be milli or mega; write {digits} {mega} or "
            f"{float(_exact(digits) / 1000):g} {mega[1:]}"
        )
    if each is None:
        raise _refusal("not an energy", text, _HOW_ENERGY)
    return _positive(_exact(digits) * each, "an energy", "")


def parse_power_w(value: Any) -> float:
    """Watts, more than 0, of ``500``, ``500W``, ``1.2 kW``, ``2 MW`` or a number. Of units with an
    M only exactly MW is read: mW is a thousand million times less."""
    if not isinstance(value, str):
        return _positive(value, "a power", _HOW_POWER)
    text = value.strip()
    match = _ENERGY.fullmatch(text)
    if match is None:
        raise _refusal("not a power", text, _HOW_POWER)
    digits, unit = match[1], match[2]
    if unit.lower() == "mw" and unit != "MW":
        raise ValueError(
            f"not a power: {unit!r} could be milli or mega; write {digits} MW or "
            f"{float(_exact(digits) / 1000):g} W"
        )
    each = 10**6 if unit == "MW" else _WATTS.get(unit.lower())
    if each is None:
        raise _refusal("not a power", text, _HOW_POWER)
    return _positive(_exact(digits) * each, "a power", "")


def parse_moment(value: Any) -> datetime:
    """The time, in UTC, of ``2026-12-01T00:00Z`` or ``2026-12-01 00:00+01:00``. Its zone must be
    said: a deadline that is hours off is no deadline."""
    text = value.strip() if isinstance(value, str) else ""
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("not a time; write for example 2026-12-01T00:00Z") from None
    if moment.tzinfo is None:
        plain = f"{moment:%Y-%m-%dT%H:%M}"
        raise ValueError(f"its time zone is missing; write {plain}Z for UTC, or {plain}+02:00")
    return moment.astimezone(UTC)


def parse_deadline(value: Any) -> float | datetime:
    """Seconds of a duration, or a time with its zone."""
    if isinstance(value, datetime) or (isinstance(value, str) and _DATE.match(value.strip())):
        return parse_moment(value)
    try:
        return parse_duration_s(value)
    except ValueError as error:
        hint = ", or a time such as 2026-12-01T00:00Z" if _HOW_DURATION in str(error) else ""
        raise ValueError(f"{error}{hint}") from None


def _exact(digits: str) -> Fraction:
    return Fraction(re.sub("[_ \u00a0\u202f]", "", digits))


def _positive(value: Any, what: str, how: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Fraction):
        raise ValueError(f"not {what}; {how}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 < number < math.inf:
        raise ValueError(f"not {what}: it must be more than 0, and finite")
    return number


def _refusal(what: str, text: str, fix: str) -> ValueError:
    """The error, with a better fix where the fault is a common one."""
    if any(c.isdigit() and not c.isascii() for c in text):
        fix = "write its digits as 0 to 9"
    elif re.match(r"[+-]?0[xob]", text, re.IGNORECASE):
        fix = "write it in decimal"
    elif comma := re.match(r"([0-9]+),([0-9]+)(?![0-9,])", text):
        whole, part, rest = comma[1], comma[2], text[comma.end() :]
        fix = f"write a point for the comma, {whole}.{part}{rest}"
        fix += f", or no mark, {whole}{part}{rest}" * (len(part) == 3)
    elif text.startswith("-"):
        fix = f"it must be more than 0; {fix}"
    return ValueError(f"{what}; {fix}")
