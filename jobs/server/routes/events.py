"""``/v1/jobs/{job_id}/events``: a job's history as it is written, and its progress."""

from __future__ import annotations

import logging
import math
from collections.abc import AsyncIterator
from typing import Annotated

import anyio
from fastapi import APIRouter, Depends, Header, Query, Response
from fastapi.responses import StreamingResponse
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event

from cluster.clock import monotonic_s
from cluster.errors import ClusterError
from jobs.server.auth import ReadsJobs
from jobs.server.context import Context, InContext
from jobs.server.problems import Refusal
from jobs.server.public import public_event, public_job
from jobs.server.routes.jobs import JobId
from jobs.service.views import JobView, Progress, View

logger = logging.getLogger(__name__)

router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

_RETRY_MS = 1000  # of a client that lost its connection
_PING_S = 15.0  # of silence, after which proxies might close a connection
_MOST_KEPT = 10_000  # jobs
_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


_TEXT = {"type": "string"}
_FRAME = {  # as OpenAPI 3.2 has it
    "type": "object",
    "properties": {"event": _TEXT, "data": _TEXT, "id": _TEXT, "retry": {"type": "integer"}},
    "required": ["event", "data"],
}


class EventStream(StreamingResponse):
    """Server-sent events. FastAPI's own class logs a fault whenever a client goes away, and takes
    two tasks for each."""

    media_type = "text/event-stream"


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
    response_class=EventStream,
    responses={200: {"content": {EventStream.media_type: {"schema": _FRAME}}}},
    dependencies=[Depends(_visible), Depends(_place)],
)
async def events(
    context: InContext,
    job_id: JobId,
    follow: Annotated[bool, Query(description="False: end after what has happened.")] = True,
    last_event_id: Annotated[int, Header(ge=0, le=2**53)] = 0,
) -> Response:
    """The job's history after `Last-Event-ID`, as server-sent events: `history` (an event; its id
    is its number), `progress` (without an id), and `end` once the job has ended. A stream that
    ends without `end` goes on where it was when the client comes back."""
    return EventStream(_frames(context, job_id, last_event_id, follow), headers=_HEADERS)


async def _frames(context: Context, job_id: str, sent: int, follow: bool) -> AsyncIterator[bytes]:
    """The stream: each event once and in order, progress when it changes. Ends early when the store
    is away: the client comes back."""
    until_s = quiet_s = monotonic_s()
    until_s += context.options.watch_s
    shown, ended_s = b"", math.inf
    try:
        while True:
            view = await context.statuses.get(job_id)
            if view.state.is_terminal:
                ended_s = min(ended_s, monotonic_s())
            settled = monotonic_s() - ended_s >= context.options.settle_s
            ends = not follow or settled or await _end_is_told(context, view)
            if view.last_event > sent or ends:
                if not follow:
                    context.histories.drop((job_id, sent))
                for event in await context.histories.get((job_id, sent)):
                    sent = event.id
                    yield _frame("history", public_event(event, context.clean), sent)
            progress = _progress(context, view)
            if progress != shown:
                shown, quiet_s = progress, monotonic_s()
                yield b"event: progress\n" + progress
            if ends:
                yield b"event: end\n" + progress
                return
            now_s = monotonic_s()
            if now_s >= until_s:
                return
            if now_s - quiet_s >= _PING_S:
                quiet_s = now_s
                yield KEEPALIVE_COMMENT
            await anyio.sleep(context.options.poll_s)
    except ClusterError as error:
        logger.warning("a stream of events of job %s ends: %s", job_id, error)


async def _end_is_told(context: Context, view: JobView) -> bool:
    """Whether the job's last event says that it has ended."""
    if not view.state.is_terminal:
        return False
    last = await context.histories.get((view.job_id, max(0, view.last_event - 1)))
    return any(event.state == view.state for event in last)


def _frame(event: str | None, data: View, number: int | None = None) -> bytes:
    return format_sse_event(
        event=event,
        data_str=data.model_dump_json(),
        id=None if number is None else str(number),
        retry=_RETRY_MS,
    )


def _progress(context: Context, view: JobView) -> bytes:
    """The frame of the job's progress, without its name: made once of each status that was read,
    for all who watch."""
    kept = context.progress.get(view.job_id)
    if kept is None or kept[0] is not view:
        if len(context.progress) >= _MOST_KEPT:
            context.progress.clear()
        public = public_job(view, context.clean)
        fields = {name: getattr(public, name) for name in Progress.model_fields}
        kept = context.progress[view.job_id] = (view, _frame(None, Progress(**fields)))
    return kept[1]
