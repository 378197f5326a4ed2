"""``jobs.AsyncClient``: the client's verbs for asyncio. Its calls run in threads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from jobs.client import BATCH, Client, ImageBatch
from jobs.service.views import (
    PAGE_SIZE,
    EventView,
    JobFilter,
    JobLine,
    JobPage,
    JobView,
    Quote,
    Results,
)
from jobs.spec import JobSpec

P = ParamSpec("P")
T = TypeVar("T")
_OVER = object()


class AsyncClient:
    """``Client`` whose verbs are awaited; those that return many things are ``async for``."""

    def __init__(self, **options: Any) -> None:
        self._client = Client(**options)

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await asyncio.to_thread(self._client.close)

    async def submit(
        self, spec: JobSpec | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> JobView:
        return await _run(self._client.submit, spec, idempotency_key=idempotency_key, **fields)

    async def quote(self, spec: JobSpec | None = None, **fields: Any) -> Quote:
        return await _run(self._client.quote, spec, **fields)

    async def status(self, job: str | JobView) -> JobView:
        return await _run(self._client.status, job)

    async def cancel(self, job: str | JobView, reason: str = "") -> JobView:
        return await _run(self._client.cancel, job, reason)

    async def pause(self, job: str | JobView, reason: str = "") -> JobView:
        return await _run(self._client.pause, job, reason)

    async def resume(self, job: str | JobView, reason: str = "") -> JobView:
        return await _run(self._client.resume, job, reason)

    async def results(self, job: str | JobView) -> Results:
        return await _run(self._client.results, job)

    async def page(
        self, wanted: JobFilter | None = None, page_size: int = PAGE_SIZE, page_token: str = ""
    ) -> JobPage:
        return await _run(self._client.page, wanted, page_size, page_token)

    async def wait(self, job: str | JobView, timeout_s: float | None = None) -> JobView:
        return await _run(self._client.wait, job, timeout_s)

    def uris(self, job: str | JobView) -> AsyncIterator[str]:
        return _each(self._client.uris(job))

    def jobs(self, **wanted: Any) -> AsyncIterator[JobLine]:
        return _each(self._client.jobs(**wanted))

    def events(
        self, job: str | JobView, after: int = 0, *, follow: bool = True
    ) -> AsyncIterator[EventView]:
        return _each(self._client.events(job, after, follow=follow))

    def images(
        self, job: str | JobView, *, follow: bool = True, batch: int = BATCH
    ) -> AsyncIterator[ImageBatch]:
        return _each(self._client.images(job, follow=follow, batch=batch))


async def _run(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return await asyncio.to_thread(call, *args, **kwargs)


async def _each(items: Iterator[T]) -> AsyncIterator[T]:
    while (item := await asyncio.to_thread(next, items, _OVER)) is not _OVER:
        yield item  # type: ignore[misc]
