"""Rows of CSV and JSONL, as streams. A bad line costs that line, or that record, only."""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, BinaryIO, NoReturn

import pyarrow as pa

from cluster.errors import UserError
from jobs.inputs.rows import (
    BATCH_BYTES,
    BATCH_ROWS,
    CUSTOM_ID,
    MAX_COLUMNS,
    MAX_LINE,
    Fault,
    RawRows,
    Roles,
    check_names,
    fault,
    roles_of,
)
from jobs.spec import InputsSpec

_INT64 = 2**63


class _Lines:
    """Lines of a text file, of bounded length. size: characters since it was last set to 0."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = io.TextIOWrapper(
            file, encoding="utf-8-sig", errors="surrogateescape", newline=""
        )
        self.size = self.record = 0
        self.read = 0  # lines

    def __iter__(self) -> Iterator[str]:
        while line := self._file.readline(MAX_LINE):
            self.read += 1
            self.size += len(line)
            self.record += len(line)
            if self.record >= MAX_LINE:
                raise UserError(
                    f"inputs: the row at line {self.read} is longer than {MAX_LINE >> 20} MiB; is "
                    "a quote missing?"
                )
            yield line


def csv_rows(file: BinaryIO, inputs: InputsSpec) -> Iterator[RawRows]:
    """Rows of CSV with a header: columns are text, and an empty field is null.

    UTF-8, with or without a mark; fields in double quotes may hold commas, quotes (doubled) and
    line ends.
    """
    _refuse_utf16(file)
    lines = _Lines(file)
    reader = csv.reader(lines, strict=True)
    try:
        names = next(reader, [])
    except csv.Error as error:
        raise UserError(f"inputs: the header of {inputs.source} is not CSV: {error}") from None
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"inputs: {inputs.source} has the column {twice!r} twice; rename one")
    roles = roles_of(inputs, names)
    check_names(roles, names)
    numbers: list[int] = []
    rows: list[list[str]] = []
    faults: list[Fault] = []
    while True:
        first = reader.line_num + 1
        lines.record = 0
        try:
            row = next(reader, None)
        except csv.Error as error:
            last = "" if reader.line_num <= first else f", to line {reader.line_num}"
            faults.append(fault(first, None, None, f"not CSV: {error}{last}"))
            continue
        if row is None:
            break
        if len(row) == len(names):
            numbers.append(first)
            rows.append(row)
        elif row:
            reason = f"{len(row)} fields; the header has {len(names)}"
            faults.append(fault(first, None, ",".join(row), reason))
        if len(rows) >= BATCH_ROWS or len(faults) >= BATCH_ROWS or lines.size > BATCH_BYTES:
            yield _of_csv(names, roles, numbers, rows, faults)
            numbers, rows, faults, lines.size = [], [], [], 0
    yield _of_csv(names, roles, numbers, rows, faults)


def _of_csv(
    names: list[str], roles: Roles, numbers: list[int], rows: list[list[str]], faults: list[Fault]
) -> RawRows:
    columns = {name: [row[at] or None for row in rows] for at, name in enumerate(names)}
    return _raw(roles, numbers, columns, None, faults)


def jsonl_rows(file: BinaryIO, inputs: InputsSpec) -> Iterator[RawRows]:
    """Rows of JSON, one object a line. A column is of numbers, texts or truths, by the first value
    that it has; a row with another is bad. The first row says which columns hold class, seed and
    custom_id, where the job does not."""
    _refuse_utf16(file)
    reading = _Jsonl(inputs)
    size = 0
    for number, line in enumerate(_whole_lines(file), start=1):
        size += len(line)
        reading.take(number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line)
        if reading.full or size > BATCH_BYTES:
            yield reading.batch()
            size = 0
    if reading.roles is not None:
        yield reading.batch()
        return
    found = [f": line {bad.line}: {bad.reason}" for bad in reading.faults[:1]]
    raise UserError(f"inputs: {inputs.source} has no line with a JSON object{''.join(found)}")


def _whole_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines; of one that is too long only the beginning, which is no JSON."""
    while line := file.readline(MAX_LINE):
        rest = line
        while len(rest) == MAX_LINE and not rest.endswith(b"\n"):
            rest = file.readline(MAX_LINE)
        yield line


class _Jsonl:
    def __init__(self, inputs: InputsSpec) -> None:
        self._inputs = inputs
        self._families: dict[str, str] = {}
        self.roles: Roles | None = None
        self.faults: list[Fault] = []
        self._numbers: list[int] = []
        self._rows: list[dict[str, Any]] = []

    @property
    def full(self) -> bool:
        return len(self._rows) >= BATCH_ROWS or len(self.faults) >= BATCH_ROWS

    def take(self, number: int, line: bytes) -> None:
        if not line.strip():
            return
        try:
            row = json.loads(line, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            reason = f"not JSON: {error}" if str(error) else "not JSON"
            if len(line) >= MAX_LINE:
                reason = f"longer than {MAX_LINE >> 20} MiB"
            shown = line[:400].decode(errors="replace").rstrip()
            self.faults.append(fault(number, None, shown, reason))
            return
        if not isinstance(row, dict):
            self.faults.append(fault(number, None, row, 'not an object, such as {"class": 3}'))
            return
        if self.roles is None:
            self.roles = roles_of(self._inputs, list(row))
            self.roles = replace(self.roles, seed=self.roles.seed or "seed")  # it may come later
        found = self._fault(number, row, self.roles)
        if found is not None:
            self.faults.append(found)
            return
        self._numbers.append(number)
        self._rows.append(row)

    def batch(self) -> RawRows:
        roles = self.roles or Roles("class", None, None)  # of no row yet
        names = list(dict.fromkeys(name for row in self._rows for name in row))
        columns = {name: [row.get(name) for row in self._rows] for name in names}
        made = _raw(roles, self._numbers, columns, self._families, self.faults)
        self._numbers, self._rows, self.faults = [], [], []
        return made

    def _fault(self, number: int, row: dict[str, Any], roles: Roles) -> Fault | None:
        """What is wrong with the columns to be carried."""
        for name, value in row.items():
            if value is None or name in (roles.class_, roles.seed, roles.custom_id):
                continue
            if name == CUSTOM_ID and roles.custom_id is None:
                return fault(number, name, value, "the first row has no custom_id: all need one")
            family = _family(value)
            if family is None:
                return fault(
                    number, name, value, "nested, or beyond 64 bits; make it flat, or text"
                )
            if name not in self._families:
                check_names(roles, [*self._families, name])
                if len(self._families) >= MAX_COLUMNS:
                    raise UserError(f"inputs: more than {MAX_COLUMNS} columns; leave some out")
                self._families[name] = family
            elif family != self._families[name]:
                reason = f"a {family}, where earlier rows have a {self._families[name]}"
                return fault(number, name, value, reason)
        return None


def _family(value: Any) -> str | None:
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int):
        return "number" if -_INT64 <= value < _INT64 else None
    if isinstance(value, float):
        return "number"
    return "text" if isinstance(value, str) else None


def _array(family: str, values: list[Any]) -> pa.Array:
    if family == "truth":
        return pa.array(values, pa.bool_())
    if family == "text":
        return pa.array(values, pa.string())
    if any(isinstance(value, float) for value in values):
        return pa.array([None if v is None else float(v) for v in values], pa.float64())
    return pa.array(values, pa.int64())


def _raw(
    roles: Roles,
    numbers: list[int],
    columns: dict[str, list[Any]],
    families: dict[str, str] | None,
    faults: list[Fault],
) -> RawRows:
    """families: of JSON's columns that have had a value; without them all are text."""
    bad = _not_unicode(columns, numbers)
    if bad:
        faults = [*faults, *bad.values()]
        keep = [at for at in range(len(numbers)) if at not in bad]
        numbers = [numbers[at] for at in keep]
        columns = {name: [values[at] for at in keep] for name, values in columns.items()}
    nothing = [None] * len(numbers)
    keys = [
        [] if role is None else columns.pop(role, nothing)
        for role in (roles.class_, roles.seed, roles.custom_id)
    ]
    if families is None:
        families = dict.fromkeys(columns, "text")
    arrays = {
        name: _array(family, columns[name]) for name, family in families.items() if name in columns
    }
    carried = pa.table(arrays)
    classes, seeds, custom_ids = keys
    return RawRows(numbers, classes, seeds, custom_ids, carried, faults)


def _not_unicode(columns: dict[str, list[Any]], numbers: list[int]) -> dict[int, Fault]:
    """Rows, by their place, with text that UTF-8 does not hold. Quick where there are none."""
    found: dict[int, Fault] = {}
    for name, values in columns.items():
        texts = [value for value in values if isinstance(value, str)]
        try:
            "".join(texts).encode()
        except UnicodeEncodeError:
            for at, value in enumerate(values):
                if isinstance(value, str) and not _is_unicode(value):
                    found.setdefault(at, fault(numbers[at], name, value, "not UTF-8"))
    return found


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse_utf16(file: BinaryIO) -> None:
    start = file.read(2)
    file.seek(0)
    if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise UserError("inputs: the source is UTF-16; write it as UTF-8")
