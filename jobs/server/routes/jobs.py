"""``/v1/jobs``: submit, list, look at, cancel, pause, resume."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from cluster.states import JobState
from jobs.defaults import JOB_ID
from jobs.server.auth import ReadsJobs, WritesJobs
from jobs.server.context import Context, InContext
from jobs.server.problems import FieldError, Refusal
from jobs.server.public import MOST_LABEL, MOST_NAME, check_spec, public_job, public_page
from jobs.server.tokens import Principal
from jobs.service.api import Conflict
from jobs.service.prepare import user_here
from jobs.service.views import MAX_PAGE_SIZE, PAGE_SIZE, JobFilter, JobPage, JobView
from jobs.spec import JobSpec

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

JobId = Annotated[str, Path(pattern=f"^{JOB_ID.pattern}$", description="As `job_id` says.")]
_KEY = Header(
    min_length=1,
    max_length=255,
    pattern="^[!-~]+$",
    description="Repeat a request with the same key, and the same job is returned.",
)
_LABEL = Annotated[str, Field(max_length=MOST_NAME + MOST_LABEL + 1, pattern="^[^=]+=")]


class Ask(BaseModel):
    """Why a job is cancelled, paused or resumed, for its history."""

    model_config = ConfigDict(extra="forbid")

    reason: str = Field(default="", max_length=500)


@router.post("", status_code=201)
async def submit(
    request: Request,
    response: Response,
    context: InContext,
    who: WritesJobs,
    spec: JobSpec,
    idempotency_key: Annotated[str | None, _KEY] = None,
) -> JobView:
    """Submit a job. Its owner is the token's. With an `Idempotency-Key` it is safe to repeat."""
    request.state.input_counts = True
    spec = owned(spec, who)
    await context.call(check_spec, spec)
    by = spec.owner or user_here()
    view = await context.call(context.service.submit, spec, by=by, idempotency_key=idempotency_key)
    context.statuses.put(view.job_id, view)
    context.log(request, "jobs.submit", who, 201, job_id=view.job_id)
    response.headers["Location"] = f"/v1/jobs/{view.job_id}"
    return public_job(view, context.clean)


def owned(spec: JobSpec, who: Principal) -> JobSpec:
    """The spec with the token's owner. Raises Refusal if it names another."""
    if who.owner is None:
        return spec
    if spec.owner not in (None, who.owner):
        problem = "is not the token's owner; leave it out"
        error = FieldError(
            where="body", pointer="/owner", value=repr(spec.owner[:80]), problem=problem
        )
        raise Refusal(422, "invalid", f"/owner: {problem}", errors=[error])
    return spec.model_copy(update={"owner": who.owner})


@router.get("")
async def jobs(
    request: Request,
    context: InContext,
    who: ReadsJobs,
    page_size: Annotated[
        int,
        Query(
            ge=0, description=f"At most {MAX_PAGE_SIZE}; more is taken for that. 0: {PAGE_SIZE}."
        ),
    ] = PAGE_SIZE,
    page_token: Annotated[str, Query(max_length=2048)] = "",
    state: JobState | None = None,
    owner: Annotated[str | None, Query(min_length=1, max_length=256)] = None,
    label: Annotated[list[_LABEL] | None, Query(max_length=16, description="name=value")] = None,
    since: Annotated[AwareDatetime | None, Query(description="RFC 3339, with its zone.")] = None,
) -> JobPage:
    """The jobs, the newest first, a page at a time. A token sees its owner's, unless it is an
    admin's."""
    request.state.input_counts = True
    if owner is not None and not who.sees(owner):
        raise Refusal(403, "forbidden", "the token's owner sees its own jobs; leave owner out")
    if owner is None and not who.may("admin"):
        owner = who.owner
    wanted = JobFilter(
        state=state,
        owner=owner,
        label=dict(_pair(text) for text in label or ()),
        since=since,
    )
    size = min(page_size or PAGE_SIZE, MAX_PAGE_SIZE)
    return public_page(await context.call(context.service.jobs, wanted, size, page_token))


def _pair(text: str) -> tuple[str, str]:
    name, _, value = text.partition("=")
    return name, value


@router.get(
    "/{job_id}",
    response_model=JobView,
    responses={304: {"description": "It is as `If-None-Match` says."}},
)
async def job(
    request: Request, response: Response, context: InContext, who: ReadsJobs, job_id: JobId
) -> Response:
    """The job now. With `If-None-Match` the answer is 304 while nothing has changed."""
    view = public_job(await context.job(job_id, who), context.clean)
    body = view.model_dump_json().encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**response.headers, "ETag": tag, "Cache-Control": "private, no-cache"}
    if tag in (part.strip() for part in request.headers.get("if-none-match", "").split(",")):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


@router.post("/{job_id}/cancel")
async def cancel(
    request: Request, context: InContext, who: WritesJobs, job_id: JobId, ask: Ask | None = None
) -> JobView:
    """End the job for good. What is committed stays. Repeating it changes nothing."""
    return await _change(request, context, who, job_id, ask, context.service.cancel)


@router.post("/{job_id}/pause")
async def pause(
    request: Request, context: InContext, who: WritesJobs, job_id: JobId, ask: Ask | None = None
) -> JobView:
    """Stop running the job until it is resumed. Repeating it changes nothing."""
    return await _change(request, context, who, job_id, ask, context.service.pause)


@router.post("/{job_id}/resume")
async def resume(
    request: Request, context: InContext, who: WritesJobs, job_id: JobId, ask: Ask | None = None
) -> JobView:
    """Run a paused job again. Repeating it changes nothing."""
    return await _change(request, context, who, job_id, ask, context.service.resume)


async def _change(
    request: Request,
    context: Context,
    who: Principal,
    job_id: str,
    ask: Ask | None,
    verb: Callable[..., JobView],
) -> JobView:
    reason = "" if ask is None else ask.reason
    if not reason.isprintable():
        raise Refusal(422, "invalid", "/reason: has a control character or line break; take it out")
    now = await context.job(job_id, who)
    name = f"jobs.{request.url.path.rpartition('/')[2]}"
    try:
        view = await context.call(verb, job_id, by=who.owner or user_here(), reason=reason)
    except Conflict as error:
        context.statuses.drop(job_id)
        context.log(request, name, who, 409, job_id=job_id)
        now = await context.job(job_id, who)
        raise Refusal(409, "conflict", context.clean(str(error)), state=now.state) from None
    context.statuses.put(job_id, view)
    context.log(request, name, who, 200, job_id=job_id, detail=reason)
    return public_job(view, context.clean)
