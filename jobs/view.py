"""The base of what is shown and never stored: ``--json``, HTTP and the Python client share it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class View(BaseModel):
    """Immutable; a reader refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")
