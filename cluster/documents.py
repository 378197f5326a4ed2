"""YAML and JSON that users write, read strictly: an error names the field, the value, the mend."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from cluster.errors import UserError

Model = TypeVar("Model", bound=BaseModel)


def read_mapping(path: Path, what: str, example: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, unchecked. Raises UserError when there is none."""
    try:
        text = path.read_text()
        data = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{what} {path} cannot be read: {error}; check the path") from None
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise UserError(f"{what} {path} is not valid YAML or JSON: {error}") from None
    if not isinstance(data, dict):
        raise UserError(
            f"{what} {path} holds {type(data).__name__}, not a mapping; "
            f"write fields such as '{example}'"
        )
    return data


def parse(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """The model of this mapping. Raises UserError naming every bad field, its value, the mend."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_problem(problem) for problem in error.errors()]
        raise UserError("\n".join([f"{source} is not usable:", *dict.fromkeys(lines)])) from None


def _problem(problem: Any) -> str:
    """One line for one of pydantic's errors."""
    field = ".".join(map(str, problem["loc"])) or "the whole"
    if problem["type"] == "extra_forbidden":
        return f"  {field}: unknown field; take it out, or mend its name"
    if problem["type"] == "missing":
        return f"  {field}: is missing; give it a value"
    message = problem["msg"].removeprefix("Value error, ")
    return f"  {field}: {problem['input']!r}: {message[0].lower()}{message[1:]}"
