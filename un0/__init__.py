"""Un-0: images from coupled Kuramoto oscillators.

    import un0

    sampler = un0.Sampler(un0.load_model(un0.DEFAULT_MODEL))
    images = sampler.generate(seed=0, start=0, class_ids=[0, 1, 2])  # uint8 (3, H, W, 3)

Names are imported at first use, so that ``import un0`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from un0.catalog import DEFAULT_MODEL, ModelInfo, list_models, resolve_classes
    from un0.checkpoint import from_pretrained, load_model, save_model
    from un0.config import ModelConfig
    from un0.model import Un0Model
    from un0.sampler import Sampler

__all__ = [
    "DEFAULT_MODEL",
    "ModelConfig",
    "ModelInfo",
    "Sampler",
    "Un0Model",
    "from_pretrained",
    "list_models",
    "load_model",
    "resolve_classes",
    "save_model",
]

_HOME = {
    "DEFAULT_MODEL": "catalog",
    "ModelConfig": "config",
    "ModelInfo": "catalog",
    "Sampler": "sampler",
    "Un0Model": "model",
    "from_pretrained": "checkpoint",
    "list_models": "catalog",
    "load_model": "checkpoint",
    "resolve_classes": "catalog",
    "save_model": "checkpoint",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'un0' has no attribute {name!r}")
    return getattr(import_module(f"un0.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
