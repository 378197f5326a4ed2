"""``/healthz``, ``/readyz``, ``/metrics``: for what looks after the process."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Response
from pydantic import BaseModel

from cluster.errors import ClusterError
from jobs.server.auth import ReadsFleet
from jobs.server.context import InContext
from jobs.server.problems import Refusal

router = APIRouter(tags=["health"])


class Health(BaseModel):
    status: Literal["ok"] = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """The process answers. Needs no token."""
    return Health()


@router.get("/readyz")
async def readyz(context: InContext) -> Health:
    """The store answers too. Needs no token."""
    try:
        await context.ready.get(None)
    except ClusterError:
        detail = "the store does not answer; the server's log says more"
        raise Refusal(503, "store_unavailable", detail, headers={"Retry-After": "5"}) from None
    return Health()


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(context: InContext, _: ReadsFleet) -> Response:
    """This process's own metrics, for Prometheus."""
    return Response(context.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
