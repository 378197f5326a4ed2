"""``un0.documents`` for callers of the cluster: what cannot be used is a UserError."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from cluster.errors import UserError
from un0 import documents
from un0.errors import InputError
from un0.suggest import did_you_mean

Model = TypeVar("Model", bound=BaseModel)


def read_mapping(path: Path, what: str, example: str) -> dict[str, Any]:
    """The mapping in a YAML or JSON file, unchecked. Raises UserError when there is none."""
    try:
        return documents.read_mapping(path, what, example)
    except InputError as error:
        raise UserError(str(error)) from None


def parse(model: type[Model], data: dict[str, Any], source: str) -> Model:
    """The model of this mapping. Raises UserError naming every bad field, its value, the fix."""
    try:
        return documents.parse(model, data, source)
    except InputError as error:
        raise UserError(str(error)) from None


def read_bundled(
    model: type[Model], name: str | Path, folder: Path, what: str, example: str
) -> Model:
    """The model in ``folder/name.yaml``, or in the file ``name``. Raises UserError."""
    bundled = folder / f"{name}.yaml"
    path = bundled if bundled.is_file() else Path(name)
    if not path.exists():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        fix = did_you_mean(str(name), known, then=f"bundled: {', '.join(known)}")
        raise UserError(f"{what} {str(name)!r} is neither a file nor bundled; {fix}")
    return parse(model, read_mapping(path, what, example), f"{what} {path}")
