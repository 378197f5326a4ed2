"""``/v1/jobs/{job_id}/results``: which files are committed, and their bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import StreamingResponse

from jobs.server.auth import ReadsJobs, ReadsResults
from jobs.server.context import Context, InContext
from jobs.server.problems import Refusal
from jobs.server.public import public_results
from jobs.server.routes.jobs import JobId
from jobs.service.files import MOST_FILES, ResultsPage

router = APIRouter(prefix="/v1/jobs", tags=["results"])

PARQUET = "application/vnd.apache.parquet"
_CHUNK = 2**20  # bytes that are read at once


@router.get("/{job_id}/results")
async def results(
    context: InContext,
    who: ReadsJobs,
    job_id: JobId,
    page_size: Annotated[int, Query(ge=0, description=f"Files; at most {MOST_FILES}.")] = 100,
    page_token: Annotated[str, Query(pattern="^[0-9]{0,15}$")] = "",
) -> ResultsPage:
    """Where the job's images are, in any state, and its committed files by shard."""
    await context.job(job_id, who)
    found = public_results(await context.call(context.service.results, job_id), job_id)
    size = min(page_size or 100, MOST_FILES)
    after = int(page_token) if page_token else -1
    files = await context.call(context.files.page, job_id, after, size)
    token = str(files[-1].shard) if len(files) == size else ""
    fields = {name: getattr(found, name) for name in type(found).model_fields}
    return ResultsPage(**fields, files=tuple(files), next_page_token=token)


@router.get(
    "/{job_id}/results/{shard}",
    response_class=StreamingResponse,
    responses={200: {"content": {PARQUET: {"schema": {"type": "string", "format": "binary"}}}}},
)
async def result(
    request: Request,
    context: InContext,
    who: ReadsResults,
    job_id: JobId,
    shard: Annotated[int, Path(ge=0, lt=2**40)],
) -> StreamingResponse:
    """The committed Parquet file of a shard, as it is in the store."""
    await context.job(job_id, who)
    file, opening = await context.call(context.files.open, job_id, shard)
    stack = ExitStack()
    reader = await context.call(stack.enter_context, opening)
    context.log(request, "results.read", who, 200, job_id=job_id, detail=f"shard {shard}")
    headers = {"Content-Length": str(file.size_bytes), "ETag": f'"{file.sha256}"'}
    body = _chunks(context, reader, stack, file.size_bytes)
    return StreamingResponse(body, headers=headers, media_type=PARQUET)


async def _chunks(
    context: Context, reader: BinaryIO, stack: ExitStack, left: int
) -> AsyncIterator[bytes]:
    with stack:
        while left > 0:
            data = await context.call(reader.read, min(_CHUNK, left))
            if not data:
                raise Refusal(503, "store_unavailable", "the file ended early")  # cuts it off
            left -= len(data)
            yield data
