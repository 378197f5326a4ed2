"""Fast paths behind one interface. ``build_engine`` picks the best that fits the request.

To add one, write a class with the shape of ``Engine`` and put it in ``ENGINES``, fastest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from un0.config import ModelConfig
from un0.engine.base import DTYPES, FP8_PRECISIONS, PRECISIONS, Engine, Precision
from un0.engine.eager import EagerEngine
from un0.errors import InputError
from un0.model import Un0Model

__all__ = ["ENGINES", "Engine", "EngineKind", "Precision", "build_engine", "default_tile"]


FP8_CAPABILITY = (8, 9)  # Ada, Hopper and newer multiply it


@dataclass(frozen=True)
class EngineKind:
    """How to build one kind of engine, and for what it is fit."""

    name: str
    build: Callable[[Un0Model, torch.device, Precision, int], Engine]
    fits: Callable[[ModelConfig, torch.device, Precision], bool]


def _cpu_engine(model: Un0Model, device: torch.device, precision: Precision, tile: int) -> Engine:
    from un0.engine.cpu import CpuEngine  # numba: slow to import

    return CpuEngine(model, device, precision, tile)


def _cpu_engine_fits(_config: ModelConfig, device: torch.device, precision: Precision) -> bool:
    if device.type != "cpu":
        return False
    from un0.engine.cpu import fits

    return fits(precision)


def _cuda_engine(model: Un0Model, device: torch.device, precision: Precision, tile: int) -> Engine:
    from un0.engine.cuda import CudaEngine

    return CudaEngine(model, device, precision, tile)


def _cuda_engine_fits(config: ModelConfig, device: torch.device, precision: Precision) -> bool:
    if device.type != "cuda":
        return False
    from un0.engine.fused import fits

    if not fits(config):
        return False
    if precision in FP8_PRECISIONS:
        return torch.cuda.get_device_capability(device) >= FP8_CAPABILITY
    return precision in DTYPES


ENGINES: list[EngineKind] = [
    EngineKind("cuda", _cuda_engine, _cuda_engine_fits),
    EngineKind("cpu", _cpu_engine, _cpu_engine_fits),
    EngineKind("eager", EagerEngine, lambda _config, _device, precision: precision in DTYPES),
]


def build_engine(
    model: Un0Model,
    device: torch.device | str,
    precision: Precision = "fp32",
    *,
    tile: int | None = None,
    name: str | None = None,
) -> Engine:
    """The first engine of ``ENGINES`` that fits, or the one called ``name``.

    tile: rows of one call; None takes ``default_tile``. Raises InputError when nothing fits.
    """
    device = torch.device(device)
    _check_precision(precision, device)
    if tile is None:
        tile = default_tile(model.config, device)
    if tile < 1:
        raise InputError(f"tile is {tile}; it must be a positive number of images")
    for kind in ENGINES:
        if name in (None, kind.name) and kind.fits(model.config, device, precision):
            return kind.build(model, device, precision, tile)
    known = ", ".join(kind.name for kind in ENGINES)
    raise InputError(
        f"no engine {name or 'at all'!r} fits {precision} on this {device.type}; engines are "
        f"{known}; leave the name out, or choose another precision"
    )


def default_tile(config: ModelConfig, device: torch.device) -> int:
    """Images per engine call: large enough to be near peak speed, small enough to answer soon.

    It depends on the model alone for a kind of device, so that a whole fleet uses one value.
    """
    if device.type == "cpu":
        return 32 if config.n <= 2048 else 64
    # 2 * tile rows fill a large GPU in the product with K; a small model also has launches to hide.
    return 1024 if config.n <= 4096 else 256


def _check_precision(precision: str, device: torch.device) -> None:
    if precision not in PRECISIONS:
        raise InputError(f"precision is {precision!r}; choose one of {', '.join(PRECISIONS)}")
    if device.type == "cpu" and precision == "fp16":
        raise InputError(
            "precision fp16 on a CPU runs in emulation, a hundred times slower than fp32; "
            "choose bf16 or fp32"
        )
    if precision in FP8_PRECISIONS and device.type != "cuda":
        raise InputError(
            f"precision {precision} needs an NVIDIA GPU of compute capability 8.9 or newer, and "
            f"this is {device.type}; choose int8, bf16 or fp32"
        )
