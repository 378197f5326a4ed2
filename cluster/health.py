"""The result of a health check. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["ok", "warn", "fail"]


class Check(BaseModel):
    """The result of one check. fix: what to do about a warn or a fail; None if nothing."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    detail: str
    fix: str | None = None
