"""The checkpoint layouts this package reads, each turned into one ``Checkpoint``.

Three kinds of file hold the same tensors under different names:

- released ``.pt``: ``{"model": state dict, "config": dict}``, read with ``weights_only=True``;
- community ``.safetensors`` (browser export): metadata strings, mup scales already applied;
- our own ``.safetensors``: a versioned header, tensors named as in ``Un0Model``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from un0.config import ModelConfig
from un0.errors import ModelFormatError
from un0.header import parse_header
from un0.layouts import (
    Checkpoint,
    arrange,
    check_block_count,
    check_in_channels,
    community_layout,
    num_blocks,
    own_layout,
    released_layout,
)

# What a released config means where it is silent, by number of decoder blocks.
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


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file of any known layout; the content decides, not the suffix.

    Tensors may be backed by the mapped file. Raises ModelFormatError, naming the file.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise ModelFormatError(
            f"{path}: cannot be read ({error.strerror}); give a readable checkpoint file"
        ) from error
    if not head:
        raise ModelFormatError(f"{path}: the file is empty; copy or download it again")
    try:
        if head[4:9] == b"\0\0\0\0{":  # a 64-bit header length, then JSON
            return _read_safetensors(path)
        if head[:2] in (b"PK", b"\x80\x02"):  # torch's zip, or its older bare pickle
            return _read_torch(path, mmap=head[:2] == b"PK")
    except ModelFormatError as error:
        raise ModelFormatError(f"{path}: {error}") from error.__cause__
    raise ModelFormatError(
        f"{path}: not a checkpoint (it begins with {head!r}); "
        "give a .pt or .safetensors file of an Un-0 model"
    )


# --- released .pt ---


def _read_torch(path: Path, mmap: bool) -> Checkpoint:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # whatever a damaged or hostile archive provokes
        raise ModelFormatError(
            "cannot be read as a checkpoint of plain tensors: it is damaged, or needs code to be "
            f"run, which is refused ({_first_line(error)}); download it again from its source"
        ) from error
    if not (isinstance(content, dict) and {"model", "config"} <= content.keys()):
        raise ModelFormatError('lacks the entries "model" and "config" of a released checkpoint')
    state, raw = content["model"], content["config"]
    if not isinstance(state, Mapping) or not isinstance(raw, Mapping):
        raise ModelFormatError('its "model" and "config" must be dictionaries')
    tensors: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ModelFormatError(f"{key!r} in the state dict is not a tensor")
        tensors[str(key).replace("_orig_mod.", "")] = tensor
    for key in ("dynamics.omega", "dynamics.omega_cond"):
        if key in tensors and tensors[key].dim() == 2 and tensors[key].shape[0] == 1:
            tensors[key] = tensors[key][0]  # stored as one row
    config = _released_config(raw, tensors)
    return Checkpoint(config, arrange(tensors, released_layout, config))


def _released_config(raw: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> ModelConfig:
    shape_of_drive = tensors["dynamics.K_drive"].shape if "dynamics.K_drive" in tensors else ()
    if len(shape_of_drive) != 3:
        raise ModelFormatError("tensor dynamics.K_drive is missing or not three-dimensional")
    blocks = num_blocks(tensors, released_layout)
    stated = {key: value for key, value in raw.items() if value is not None}
    defaults = _FAMILY_DEFAULTS.get(blocks, {})
    solution: dict[str, Any] = {}
    for key in _FAMILY_DEFAULTS[3]:
        if key not in stated and key not in defaults:
            raise ModelFormatError(
                f"config key {key} is absent, and {blocks} decoder blocks belong to no "
                "released family (3: CIFAR-10, 4: ImageNet-64) that says its default; add the key"
            )
        solution[key] = stated.get(key, defaults.get(key))
    config = ModelConfig(
        n=stated.get("n_oscillators", shape_of_drive[1]),
        n_cond=stated.get("n_conditional_oscillators", shape_of_drive[2]),
        num_classes=shape_of_drive[0],
        num_blocks=blocks,
        class_dropout_prob=stated.get("class_dropout_prob", 0.1),
        **solution,
    )
    check_in_channels(stated.get("decoder_in_channels"), config)
    return config


# --- .safetensors, own and community ---


def _read_safetensors(path: Path) -> Checkpoint:
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(
            f"cannot be read as safetensors: it is damaged or cut short ({_first_line(error)}); "
            "copy or download it again"
        ) from error
    if "format_version" in header:
        stated = parse_header(header)
        check_block_count(stated.config.num_blocks, tensors, own_layout)
        arranged = arrange(tensors, own_layout, stated.config)
        return Checkpoint(stated.config, arranged, stated.labels, stated.metadata)
    config = _community_config(header, tensors)
    return Checkpoint(config, arrange(tensors, community_layout, config))


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


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
