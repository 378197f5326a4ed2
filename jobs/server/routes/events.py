"""``/v1/jobs/{job_id}/events``: a job's history as it is written, and its progress."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header, Query
from fastapi.sse import EventSourceResponse, ServerSentEvent

from cluster.clock import monotonic_s
from jobs.server.auth import ReadsJobs
from jobs.server.context import Context, InContext
from jobs.server.problems import Refusal
from jobs.server.public import public_event, public_job
from jobs.server.routes.jobs import JobId
from jobs.service.views import JobView, Progress

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_RETRY_MS = 1000  # of a client that lost its connection


async def _visible(context: InContext, who: ReadsJobs, job_id: JobId) -> None:
    """Before the stream begins: afterwards there is no status to answer with."""
    await context.job(job_id, who)


async def _place(context: InContext) -> AsyncIterator[None]:
    """A place among the watchers. Raises Refusal if all are taken."""
    watchers = context.metrics.watchers
    if context.watching >= context.options.watchers:
        detail = "too many streams of events are open; poll the job with If-None-Match instead"
        raise Refusal(503, "too_many_watchers", detail, headers={"Retry-After": "30"})
    context.watching += 1
    watchers.inc()
    try:
        yield
    finally:
        context.watching -= 1
        watchers.dec()


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
    dependencies=[Depends(_visible), Depends(_place)],
)
async def events(
    context: InContext,
    job_id: JobId,
    follow: Annotated[bool, Query(description="False: end after what has happened.")] = True,
    last_event_id: Annotated[int, Header(ge=0, le=2**53)] = 0,
) -> AsyncIterator[ServerSentEvent]:
    """The job's history after `Last-Event-ID`, as server-sent events: `history` (an event; its id
    is its number), `progress` (without an id), and `end` once the job has ended. A stream that
    ends without `end` goes on where it was when the client comes back."""
    async for frame in frames(context, job_id, last_event_id, follow):
        yield frame


async def frames(
    context: Context, job_id: str, sent: int, follow: bool
) -> AsyncIterator[ServerSentEvent]:
    """The stream: each event once and in order, progress when it changes."""
    until_s = monotonic_s() + context.options.watch_s
    shown: Progress | None = None
    ended_before = not follow
    while True:
        view = await context.statuses.get(job_id)
        ends = ended_before or (view.state.is_terminal and shown is not None)
        if view.last_event > sent or ends:
            if not follow:
                context.histories.drop((job_id, sent))
            for event in await context.histories.get((job_id, sent)):
                yield ServerSentEvent(
                    event="history",
                    id=str(event.id),
                    data=public_event(event, context.clean),
                    retry=_RETRY_MS,
                )
                sent = event.id
        progress = _progress(public_job(view, context.clean))
        if progress != shown:
            shown = progress
            yield ServerSentEvent(event="progress", data=progress)
        if ends:
            yield ServerSentEvent(event="end", data=progress)
            return
        if monotonic_s() >= until_s:
            return
        await anyio.sleep(context.options.poll_s)


def _progress(view: JobView) -> Progress:
    return Progress.model_validate({name: getattr(view, name) for name in Progress.model_fields})
