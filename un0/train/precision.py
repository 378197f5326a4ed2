"""Choice of device and of the arithmetic that training runs in."""

from __future__ import annotations

import torch
from torch import nn

from un0.errors import InputError
from un0.train.recipe import Precision


def pick_device(name: str | None) -> torch.device:
    """``cpu``, ``cuda`` or ``cuda:1``; None is CUDA where there is one."""
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {name}: no CUDA device is visible; use cpu")
    return device


def use_bf16(precision: Precision, device: torch.device) -> bool:
    """Whether convolutions run in bf16: ``auto`` says yes where the hardware has it."""
    if precision != "auto":
        return precision == "bf16"
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def autocast(bf16: bool, device: torch.device) -> torch.autocast:
    """A fresh context: enter one per step, as it keeps cast weights until it is left."""
    return torch.autocast(device.type, torch.bfloat16, enabled=bf16)


def channels_last(module: nn.Module) -> None:
    """Lay the weights out with channels innermost, in place: convolutions run faster so."""
    for parameter in module.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
