"""``/v1/models`` and ``/v1/quote``: what can be asked for, and what it would take."""

from __future__ import annotations

from fastapi import APIRouter, Request

from jobs.server.auth import ReadsJobs
from jobs.server.context import InContext
from jobs.server.public import check_spec
from jobs.server.routes.jobs import owned
from jobs.service.views import ModelView, Quote
from jobs.spec import JobSpec
from un0.catalog import DEFAULT_MODEL, list_models

router = APIRouter(prefix="/v1", tags=["models"])


@router.post("/quote")
async def quote(request: Request, context: InContext, who: ReadsJobs, spec: JobSpec) -> Quote:
    """What the job would take. Writes nothing."""
    request.state.input_counts = True
    spec = owned(spec, who)
    await context.call(check_spec, spec)
    return await context.call(context.service.quote, spec)


@router.get("/models")
async def models(context: InContext, _: ReadsJobs) -> list[ModelView]:
    """The models that jobs may name."""
    return await context.call(_models)


def _models() -> list[ModelView]:
    return [
        ModelView(
            name=model.name,
            default=model.name == DEFAULT_MODEL,
            image_size=model.image_size,
            num_classes=model.num_classes,
            labels=model.labels,
            params=model.params,
            fid=model.fid,
            fid_evaluator=model.fid_evaluator,
            licence=model.licence,
        )
        for model in list_models()
    ]
