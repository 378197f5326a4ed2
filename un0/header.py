"""The metadata header of our own safetensors export, version 1. Reads without PyTorch.

Five strings: ``format`` ("un0"), ``format_version`` ("1"), and as JSON ``config`` (every field of
``ModelConfig``), ``labels`` (class names by class id, or none) and ``metadata`` (free-form:
licence, data, scores ...).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from un0.config import ModelConfig
from un0.errors import ModelFormatError

FORMAT, FORMAT_VERSION = "un0", "1"


@dataclass(frozen=True)
class Header:
    """What an export says of its model."""

    config: ModelConfig
    labels: tuple[str, ...]
    metadata: dict[str, Any]


def write_header(header: Header) -> dict[str, str]:
    """The header as safetensors metadata. Raises TypeError or ValueError when it is not JSON."""
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "config": json.dumps(asdict(header.config)),
        "labels": json.dumps(header.labels),
        "metadata": json.dumps(header.metadata, allow_nan=False),
    }


def parse_header(raw: Mapping[str, str]) -> Header:
    """The inverse of ``write_header``. Raises ModelFormatError."""
    stated = raw.get("format"), raw.get("format_version")
    if stated != (FORMAT, FORMAT_VERSION):
        raise ModelFormatError(
            f"format {stated[0]!r} version {stated[1]!r}; this build reads {FORMAT!r} version "
            f"{FORMAT_VERSION!r}: use a build that knows it, or export the model again"
        )
    try:
        config, labels, metadata = (json.loads(raw[k]) for k in ("config", "labels", "metadata"))
    except (KeyError, ValueError) as error:
        raise ModelFormatError(
            f"its header lacks a readable config, labels or metadata ({error!r}); export it again"
        ) from error
    known = {field.name for field in fields(ModelConfig)}
    if not isinstance(config, dict) or config.keys() != known:
        raise ModelFormatError(f"its config must state exactly {', '.join(sorted(known))}")
    if not isinstance(metadata, dict):
        raise ModelFormatError(f"its metadata is {metadata!r}; it must be a dictionary")
    try:
        checked = ModelConfig(**config)
    except TypeError as error:
        raise ModelFormatError(f"its config holds a value of the wrong type: {error}") from error
    return Header(checked, check_labels(labels, checked.num_classes), metadata)


def read_header(path: Path) -> Header:
    """The header of an export, without its tensors. Raises ModelFormatError, naming the file."""
    try:
        with safe_open(path, framework="numpy") as file:
            return parse_header(file.metadata() or {})
    except (SafetensorError, OSError, ModelFormatError) as error:
        raise ModelFormatError(f"{path}: {error}") from error


def check_labels(labels: Sequence[Any], num_classes: int) -> tuple[str, ...]:
    """The labels, or ModelFormatError unless there is none or one distinct text per class."""
    if not isinstance(labels, list | tuple) or not all(isinstance(x, str) and x for x in labels):
        raise ModelFormatError(f"labels are {labels!r}; they must be a list of texts")
    if labels and len(labels) != num_classes:
        raise ModelFormatError(
            f"{len(labels)} labels for {num_classes} classes; give one for each, or none"
        )
    if len({label.casefold() for label in labels}) != len(labels):
        raise ModelFormatError(f"labels {labels!r} name two classes alike; make each distinct")
    return tuple(labels)
