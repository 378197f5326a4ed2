"""YAML 1.2 and JSON that users write, read so that they mean one thing or are refused.

UTF-8 whatever the locale, or UTF-16 with its mark. One document, no key twice, and nothing that
stands for far more than was written. Dates, times and numbers not in decimal stay text.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from un0.errors import InputError
from un0.suggest import did_you_mean

STDIN = Path("-")
MAX_BYTES = 4 * 2**20
MAX_VALUES = 100_000  # with every alias written out
MAX_DEPTH = 100
_SHOWN = 120  # characters of a value in an error

Model = TypeVar("Model", bound=BaseModel)


def read_mapping(path: Path, what: str, example: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, or on standard input for ``-``, unchecked.

    Raises InputError, with the line where there is one, if it holds none or could be misread.
    """
    source = f"{what} from standard input" if path == STDIN else f"{what} {path}"
    try:
        text = _decoded(_bytes(path))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else f"{error}; save it as UTF-8"
        raise InputError(f"{source} cannot be read: {why}; check the path") from None
    if len(text) > MAX_BYTES:
        raise InputError(f"{source} is larger than {MAX_BYTES // 2**20} MiB; check the path")
    try:
        data = _load(text, source, path)
        _check_size(data, source)
    except RecursionError:
        raise InputError(f"{source} is nested too deep; write at most {MAX_DEPTH} levels") from None
    if not isinstance(data, dict):
        kind = "nothing" if data is None else f"a {type(data).__name__}"
        raise InputError(f"{source} holds {kind}, not a mapping; write fields such as '{example}'")
    return data


def parse(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """The model of this mapping. Raises InputError naming every bad field, its value, the fix."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_line(fault(problem, list(model.model_fields))) for problem in error.errors()]
        raise InputError("\n".join([f"{source} is not usable:", *dict.fromkeys(lines)])) from None


def _bytes(path: Path) -> bytes:
    if path == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _decoded(data: bytes) -> str:
    return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")


def _load(text: str, source: str, path: Path) -> Any:
    if path.suffix.lower() == ".json":
        return _json(text, source)
    if path == STDIN and text.lstrip().startswith("{"):  # JSON, or YAML's way to write it
        try:
            json.loads(text)
        except ValueError:
            return _yaml(text, source)
        return _json(text, source)
    return _yaml(text, source)


def _json(text: str, source: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError(f"{source} has the key {key!r} twice; keep one")
            found[key] = value
        return found

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputError(
            f"{source} is not valid JSON: line {error.lineno}, column {error.colno}: {error.msg}"
        ) from None
    except ValueError as error:  # an integer of thousands of digits
        raise InputError(f"{source} is not usable: {error}") from None


def _yaml(text: str, source: str) -> Any:
    from ruamel.yaml.constructor import DuplicateKeyError  # it takes 30 ms to import
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    from un0.yaml_core import loader

    if version := re.search(r"^%YAML\s+(?!1\.2\b)(\S+)", text, re.MULTILINE):
        raise InputError(f"{source} says %YAML {version[1]}; drop that: it is read as YAML 1.2")
    try:
        return loader().load(text)
    except DuplicateKeyError as error:
        key = (re.search(r'key "(.*?)"', str(error.problem)) or ["", "?"])[1]
        line = error.problem_mark.line + 1
        raise InputError(f"{source} has the key {key!r} twice: line {line}; keep one") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        problem = " ".join(str(error.problem or error.context).split())
        _refuse(source, f"{where}{problem}", text, mark.line if mark else 0)
    except (YAMLError, ValueError, LookupError, TypeError) as error:
        _refuse(source, str(error).splitlines()[0], text, 0)


def _refuse(source: str, problem: str, text: str, line: int) -> NoReturn:
    if "another document" in problem:
        problem = f"{problem.replace('but found', 'there is')}; keep one"
    elif "\t" in "".join(text.splitlines()[line : line + 1]):
        problem += "; indent with spaces"
    raise InputError(f"{source} is not valid YAML: {problem}")


def _check_size(data: Any, source: str) -> None:
    """Refuse what stands for far more than was written: aliases of aliases, or of themselves."""
    sizes: dict[int, int] = {}

    def size(value: Any, depth: int) -> int:
        if not isinstance(value, dict | list | tuple | set):
            return 1
        if depth > MAX_DEPTH:
            raise RecursionError
        if id(value) not in sizes:
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            sizes[id(value)] = 1 + sum(size(part, depth + 1) for part in parts)
        return sizes[id(value)]

    if size(data, 0) > MAX_VALUES:
        raise InputError(f"{source} stands for over {MAX_VALUES:,} values; write fewer aliases")


class Fault(NamedTuple):
    """One of pydantic's errors, in words. shown: the value, cut off where it is long; None where
    there is none. message: what is wrong; what to do about it, after a semicolon."""

    name: str
    shown: str | None
    message: str


def fault(problem: Mapping[str, Any], fields: Collection[str]) -> Fault:
    """What one of ``ValidationError.errors()`` says. fields: those that the model has."""
    name = ".".join(map(str, problem["loc"])) or "the whole"
    kind, value = problem["type"], problem["input"]
    if kind == "extra_forbidden":
        if len(problem["loc"]) > 1:
            return Fault(name, None, "unknown field; take it out, or correct its name")
        fix = did_you_mean(name, fields, then=f"known fields are {', '.join(fields)}")
        return Fault(name, None, f"unknown field; {fix}")
    if kind == "missing":
        return Fault(name, None, "is missing; give it a value")
    if value is None:
        return Fault(name, None, "has no value; give it one, or take the line out")
    message = problem["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if kind == "string_type" and isinstance(value, bool | int | float):
        kind = "true or false" if isinstance(value, bool) else "a number"
        message = f"is read as {kind}, and must be text; put it in quotes"
    if kind == "literal_error" and isinstance(value, str):
        names = re.findall("'(.*?)'", problem["ctx"]["expected"])
        message = did_you_mean(value, names, then=message)
    shown = repr(value)
    return Fault(name, shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} ...", message)


def _line(found: Fault) -> str:
    return "  " + ": ".join(filter(None, (found.name, found.shown, found.message)))
