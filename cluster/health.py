"""What a look at one part of the system found: the shape that all such looks share. Pure."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Status = Literal["ok", "warn", "fail"]


class Check(BaseModel):
    """What a check found. fix: what to do about a warn or a fail; None where nothing need be."""

    model_config = ConfigDict(frozen=True)

    name: str
    status: Status
    detail: str
    fix: str | None = None
