"""The public Python API: ``from jobs import JobSpec, generate``.

Names are imported at first use: the command listens for signals before anything else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jobs.async_client import AsyncClient
    from jobs.client import Client, ImageBatch
    from jobs.result import JobResult
    from jobs.service.foreground import generate, resume
    from jobs.spec import JobSpec

__all__ = [
    "AsyncClient",
    "Client",
    "ImageBatch",
    "JobResult",
    "JobSpec",
    "generate",
    "resume",
]

_HOME = {
    "AsyncClient": "async_client",
    "Client": "client",
    "ImageBatch": "client",
    "JobResult": "result",
    "JobSpec": "spec",
    "generate": "service.foreground",
    "resume": "service.foreground",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'jobs' has no attribute {name!r}")
    return getattr(import_module(f"jobs.{_HOME[name]}"), name)
