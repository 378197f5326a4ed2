"""The checkpoint layouts this package reads, each turned into one ``Checkpoint``.

Three layouts hold the same tensors under different names, in a ``.pt`` file, in ``.safetensors``,
or in shards of either:

- released: ``{"model": state dict, "config": dict}`` in ``.pt``;
- community (browser export): metadata strings in ``.safetensors``, mup scales already applied;
- our own: a versioned header in ``.safetensors``, tensors named as in ``Un0Model``.

A file that states no config has it beside it, in ``config.json``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from un0.catalog import RELEASED
from un0.config import SEED_SIZE, ModelConfig
from un0.containers import read_content
from un0.errors import ModelFormatError
from un0.header import parse_header
from un0.layouts import (
    Checkpoint,
    Layout,
    arrange,
    check_block_count,
    check_in_channels,
    community_layout,
    detect_layout,
    listed,
    num_blocks,
    own_layout,
)
from un0.model_files import ModelFiles, read_json
from un0.unwrap import Found, Weights, unwrap

# What a config means where it is silent, by number of decoder blocks.
_FAMILY_DEFAULTS: dict[int, dict[str, Any]] = {
    3: {  # CIFAR-10, 32x32
        "num_steps": 25,
        "solver": "rk4",
        "parameterization": "standard",
        "relativization": "ref_oscillator",
        "encoding": "sin_cos",
    },
    4: {  # ImageNet-64, 64x64
        "num_steps": 10,
        "solver": "euler",
        "parameterization": "mup",
        "relativization": "ref_oscillator",
        "encoding": "sin_cos",
    },
}
# What no tensor's shape shows, as a config.json states it.
_UNSEEN: dict[str, Any] = {
    "num_steps": 10,
    "solver": "euler",
    "parameterization": "standard",
    "relativization": "ref_oscillator",
}


def read_checkpoint(files: ModelFiles, weights: Weights | None = None) -> Checkpoint:
    """Read a model of any known layout; the content decides, not the suffix.

    weights: which to take of a checkpoint with ``ema`` and ``model``; None prefers the average.
    Tensors may be backed by the mapped file. Raises ModelFormatError, naming the file.
    """
    content = read_content(files)
    try:
        found = unwrap(content.tree, weights)
        if "format_version" in content.header:
            read = _read_own(content.header, found)
        else:
            read = _read_other(content.header, found, files.config)
    except ModelFormatError as error:
        raise ModelFormatError(f"{files.path}: {error}") from error.__cause__
    metadata = {**read.metadata, "weights": found.taken} if found.averaged else read.metadata
    return replace(
        read,
        metadata=metadata,
        notes=(*_notes(found), *read.notes),
        averaged_of_two=found.averaged and bool(found.passed_over),
    )


def _read_own(header: Mapping[str, str], found: Found) -> Checkpoint:
    stated = parse_header(header)
    check_block_count(stated.config.num_blocks, found.tensors, own_layout)
    tensors = arrange(found.tensors, own_layout, stated.config)
    return Checkpoint(stated.config, tensors, stated.labels, stated.metadata)


def _read_other(header: Mapping[str, str], found: Found, beside: Path) -> Checkpoint:
    layout = detect_layout(found.tensors)
    if layout is community_layout and not _COMMUNITY_KEYS.isdisjoint(header):
        config = _community_config(header, found.tensors)
        return Checkpoint(config, arrange(found.tensors, layout, config))
    raw = _stated_inside(found)
    if raw is not None:
        config = _stated_config(raw, found.tensors, layout)
        return Checkpoint(config, arrange(found.tensors, layout, config))
    if not beside.is_file():
        raise ModelFormatError(_no_config(found.tensors, layout, beside))
    config = _stated_config(_stated_beside(beside), found.tensors, layout)
    tensors = arrange(found.tensors, layout, config)
    notes = (f"its config is that of {beside}",)
    return Checkpoint(config, tensors, notes=notes, config_file=beside)


def _notes(found: Found) -> tuple[str, ...]:
    notes = []
    if found.passed_over:
        others = " and ".join(map(repr, found.passed_over))
        notes.append(f"the weights are those under {found.taken!r}, not those under {others}")
    elif found.averaged:
        notes.append(f"the weights are the averaged ones under {found.taken!r}")
    if found.ignored:
        notes.append(f"not of the model, and ignored: {listed(found.ignored)}")
    return tuple(notes)


# --- what a config says: inside the file, or beside it ---


def _stated_inside(found: Found) -> Mapping[str, Any] | None:
    """What the file says of its architecture; an entry ``config`` counts whatever it holds."""
    for _, raw in found.configs:
        if _says_something(raw):
            return raw
    return next((raw for name, raw in found.configs if name == "config"), None)


def _stated_beside(path: Path) -> Mapping[str, Any]:
    raw = read_json(path)
    if not isinstance(raw, Mapping) or not _says_something(raw):
        raise ModelFormatError(
            f"states no config, nor does {path}, which has none of {', '.join(_UNSEEN)}; "
            f"add them there, such as {json.dumps(_UNSEEN)}"
        )
    return raw


def _says_something(raw: Mapping[str, Any]) -> bool:
    return any(raw.get(key) is not None for key in (*_UNSEEN, "n_oscillators"))


def _no_config(tensors: Mapping[str, Tensor], layout: Layout, beside: Path) -> str:
    example, hint = _UNSEEN, "such as"
    drive = tensors.get(layout("K_drive"))
    shape = None if drive is None else (*drive.shape, num_blocks(tensors, layout))
    for name, released in RELEASED.items():
        c = released.config
        if shape == (c.num_classes, c.n, c.n_cond, c.num_blocks):
            example = {key: getattr(c, key) for key in _UNSEEN}
            hint = f"its tensors have the shapes of {name}; if it is that model, write"
    if layout is community_layout:
        example = {**example, "parameterization": "standard"}  # the scales are applied
    return (
        f"states no config, and its tensors do not show {', '.join(_UNSEEN)}; write them into "
        f"{beside}: {hint} {json.dumps(example)}"
    )


def _stated_config(
    raw: Mapping[str, Any], tensors: Mapping[str, Tensor], layout: Layout
) -> ModelConfig:
    name = layout("K_drive")
    if name not in tensors or tensors[name].dim() != 3:
        raise ModelFormatError(f"tensor {name} is missing or not three-dimensional")
    num_classes, n, n_cond = tensors[name].shape
    blocks = num_blocks(tensors, layout)
    stated = {key: value for key, value in raw.items() if value is not None}
    defaults = _FAMILY_DEFAULTS.get(blocks, {})
    first = tensors.get(layout("decoder.blocks.0.a.weight"))
    if first is not None and first.dim() == 4 and SEED_SIZE**2 * first.shape[1] == 2 * n:
        defaults = {**defaults, "encoding": "sin_cos"}  # seen in the shapes
    solution: dict[str, Any] = {}
    for key in _FAMILY_DEFAULTS[3]:
        if key not in stated and key not in defaults:
            raise ModelFormatError(
                f"config key {key} is absent, and {blocks} decoder blocks belong to no "
                "released family (3: CIFAR-10, 4: ImageNet-64) that says its default; add the key"
            )
        solution[key] = stated.get(key, defaults.get(key))
    if layout is community_layout:
        solution["parameterization"] = "standard"  # such exports have the mup scales applied
    config = ModelConfig(
        n=stated.get("n_oscillators", n),
        n_cond=stated.get("n_conditional_oscillators", n_cond),
        num_classes=num_classes,
        num_blocks=blocks,
        integration_time=stated.get("integration_time", 1.0),
        class_dropout_prob=stated.get("class_dropout_prob", 0.1),
        **solution,
    )
    check_in_channels(stated.get("decoder_in_channels"), config)
    return config


# --- community metadata ---

_COMMUNITY_KEYS = frozenset({"n", "n_cond", "num_blocks", "num_steps", "solver", "relativization"})


def _community_config(header: Mapping[str, str], tensors: Mapping[str, Tensor]) -> ModelConfig:
    def number(key: str, kind: type[int] | type[float] = int) -> Any:
        try:
            return kind(text(key))
        except ValueError:
            raise ModelFormatError(f"metadata {key} is {header[key]!r}, not a number") from None

    def text(key: str) -> Any:
        if key not in header:
            raise ModelFormatError(
                f"metadata {key} is missing; this is not an Un-0 model, or an incomplete export"
            )
        return header[key]

    check_block_count(number("num_blocks"), tensors, community_layout)
    config = ModelConfig(
        n=number("n"),
        n_cond=number("n_cond"),
        num_classes=number("num_classes"),
        num_blocks=number("num_blocks"),
        num_steps=number("num_steps"),
        solver=text("solver"),
        parameterization="standard",  # the export has applied the mup scales
        relativization=text("relativization"),
        encoding="sin_cos",
        integration_time=number("integration_time", float),
    )
    check_in_channels(number("decoder_in_channels"), config)
    return config
