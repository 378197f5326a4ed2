"""The HTTP API as an ASGI app: it asks the service, and runs no job."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from cluster.errors import ClusterError
from cluster.storage.object_store import ObjectStore
from jobs.server import problems
from jobs.server.context import Auth, Context
from jobs.server.gate import Gate
from jobs.server.options import HttpOptions
from jobs.server.problems import MEDIA_TYPE, Problem, Scrubber
from jobs.server.routes import events, health, jobs, models, results
from jobs.service.api import JobService
from jobs.service.files import StoreFiles

logger = logging.getLogger(__name__)

_TITLE, _VERSION = "Un-0 jobs", "1"
_ROUTERS = (jobs.router, events.router, results.router, models.router, health.router)
#: What any route may answer beside its own answers, by status.
_ANY = (400, 401, 403, 408, 413, 422, 429, 500, 503)
_WHY = {
    400: "The request is malformed.",
    401: "No token, or none that is good.",
    403: "The token lacks a scope.",
    404: "There is no such job, or the token may not see it.",
    408: "The body came too slowly.",
    409: "The job's state, or a request with the same key, does not allow it.",
    413: "The body is too large.",
    422: "A part of the request cannot be used; `errors` says which and how to correct it.",
    429: "Too many requests, or the owner's quota is used up.",
    500: "A fault of the server.",
    503: "The store or the server is busy; try again after `Retry-After`.",
}


def create_app(
    service: JobService,
    store: ObjectStore,
    auth: Auth,
    options: HttpOptions | None = None,
) -> Any:
    """The app.

    store: where the service keeps its jobs, for the bytes of results. auth: whose requests are
    carried out (``Auth``). With ``Auth(None)`` it must be reached from this machine only.
    """
    options = options or HttpOptions()
    clean = Scrubber(store.config.uri, store.config.endpoint_url)
    context = Context(service, StoreFiles(store), auth, options, clean)
    app = FastAPI(title=_TITLE, version=_VERSION, docs_url=None, redoc_url=None, lifespan=_lifespan)
    app.state.context = context
    for router in _ROUTERS:
        app.include_router(router)
    problems.install(app, clean)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    app.add_middleware(
        Gate, options=options, metrics=context.metrics, open_to_all=auth.tokens is None
    )
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    context: Context = app.state.context
    audit = context.auth.audit
    if audit is None:
        yield
        return

    async def write() -> None:
        while True:
            await asyncio.sleep(context.options.audit_s)
            try:
                await context.call(audit.flush)
            except ClusterError as error:
                logger.warning("the audit log waits: %s", error)

    writing = asyncio.create_task(write())
    try:
        yield
    finally:
        writing.cancel()
        with suppress(ClusterError):
            audit.flush()


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's, with the errors that are answered in place of those it takes for granted."""
    if app.openapi_schema is not None:
        return app.openapi_schema
    found = get_openapi(
        title=app.title, version=app.version, routes=app.routes, description=create_app.__doc__
    )
    schemas = found["components"]["schemas"]
    made = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas |= made.pop("$defs") | {"Problem": made}
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            statuses = {*_ANY, *([404] if "{job_id}" in path else [])}
            if method == "post" and path.startswith("/v1/jobs"):
                statuses.add(409)
            for status in statuses:
                said = {"description": _WHY[status], "content": content}
                operation["responses"][str(status)] = said
    found["info"]["description"] = "Submit, watch and steer bulk generation jobs."
    app.openapi_schema = found
    return found
