"""What every checkpoint layout must hold, and under which names.

A layout is a function from ``Un0Model``'s tensor names to those in a file, so that a complaint
names a tensor as the user's file does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from un0.config import SEED_SIZE, ModelConfig, shown
from un0.errors import ModelFormatError
from un0.model import Un0Model

Layout = Callable[[str], str]


@dataclass(frozen=True)
class Checkpoint:
    """A checked file: tensors by ``Un0Model``'s names, right in number and shape.

    ``metadata``: what an own export says besides (licence, data, scores ...), and ``weights``,
    where averaged weights lay. ``notes``: what a user should know of how it was read.
    ``averaged_of_two``: an average was taken where other weights lie beside it. ``config_file``:
    the file beside it that its config is from.
    """

    config: ModelConfig
    tensors: dict[str, Tensor]
    labels: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    averaged_of_two: bool = False
    config_file: Path | None = None


def own_layout(name: str) -> str:
    return name


def community_layout(name: str) -> str:
    return name.replace("decoder.blocks.", "dec.").replace("decoder.out.", "out.")


def released_layout(name: str) -> str:
    match name.split("."):
        case ["decoder", "blocks", block, conv, leaf]:
            return f"decoder.cascade.{block}.net.{1 if conv == 'a' else 3}.{leaf}"
        case ["decoder", "out", leaf]:
            return f"decoder.to_output.{leaf}"
    return f"dynamics.{name}"


def detect_layout(tensors: Mapping[str, Tensor]) -> Layout:
    """The layout by which these tensors are named: in doubt the released one."""
    if any(name.startswith("dec.") for name in tensors):
        return community_layout
    if "K_drive" in tensors or any(name.startswith("decoder.blocks.") for name in tensors):
        return own_layout
    return released_layout


def num_blocks(tensors: Mapping[str, Tensor], layout: Layout) -> int:
    """Decoder blocks counted from the file itself: what it says of itself may be wrong."""
    count = 0
    while layout(f"decoder.blocks.{count}.a.weight") in tensors:
        count += 1
    return count


def arrange(
    tensors: Mapping[str, Tensor], layout: Layout, config: ModelConfig
) -> dict[str, Tensor]:
    """The file's tensors by ``Un0Model``'s names. Raises on any that is missing, odd or extra."""
    try:
        with torch.device("meta"):
            wanted = {layout(name): (name, t) for name, t in Un0Model(config).state_dict().items()}
    except (RuntimeError, TypeError, OverflowError) as error:
        raise ModelFormatError(
            f"its config is of no possible size: n={config.n}, n_cond={config.n_cond}, "
            f"num_classes={config.num_classes}; correct it"
        ) from error
    if missing := sorted(wanted.keys() - tensors.keys()):
        raise ModelFormatError(
            f"{_some('tensor', missing)} missing; "
            "the file is incomplete or its config names another architecture"
        )
    if unexpected := sorted(tensors.keys() - wanted.keys()):
        raise ModelFormatError(
            f"{_some('tensor', unexpected)} unexpected; "
            "this is not an Un-0 model of the architecture its config states"
        )
    arranged = {}
    for file_name, (name, like) in wanted.items():
        tensor = tensors[file_name]
        if layout is released_layout and like.dim() == 1 == tensor.dim() - 1 == len(tensor):
            tensor = tensor[0]  # stored as one row
        if tensor.shape != like.shape:
            raise ModelFormatError(
                f"tensor {file_name} has shape {tuple(tensor.shape)}, expected "
                f"{tuple(like.shape)}; the file's config and its tensors disagree"
            )
        if not tensor.is_floating_point():
            raise ModelFormatError(
                f"tensor {file_name} holds {tensor.dtype}; export it as a floating-point type "
                "(quantised weights: dequantised)"
            )
        if not _is_dense(tensor):
            raise ModelFormatError(
                f"tensor {file_name} does not hold all its numbers; export it as a dense tensor"
            )
        arranged[name] = tensor.detach()
    return arranged


def _is_dense(tensor: Tensor) -> bool:
    """False for sparse and data-less tensors, and for one number posing as terabytes."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type == "cpu"
        and tensor.untyped_storage().nbytes() >= tensor.numel() * tensor.element_size()
    )


def _some(noun: str, names: list[str]) -> str:
    return f"{noun} {listed(names)} is" if len(names) == 1 else f"{noun}s {listed(names)} are"


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def check_block_count(stated: int, tensors: Mapping[str, Tensor], layout: Layout) -> None:
    found = num_blocks(tensors, layout)
    if stated != found:
        raise ModelFormatError(
            f"num_blocks is {stated}, but the file holds {found} decoder blocks; export it again"
        )


def check_in_channels(value: object, config: ModelConfig) -> None:
    if value is None:
        return
    if not isinstance(value, int | float) or value != config.channels[0]:
        raise ModelFormatError(
            f"decoder_in_channels is {shown(value)}; {config.num_features} features on a "
            f"{SEED_SIZE}x{SEED_SIZE} map give {config.channels[0]}, and no other is supported"
        )
