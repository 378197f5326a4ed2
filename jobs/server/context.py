"""What the routes share: the service behind caches and a bounded pool, tokens, limits, logs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from typing import Annotated, ParamSpec, TypeVar

from fastapi import Depends, Request

from cluster.clock import utc_now
from cluster.errors import ClusterError
from jobs.server.audit import Audit, Entry
from jobs.server.limiter import Limiter
from jobs.server.metrics import Metrics
from jobs.server.options import HttpOptions
from jobs.server.pool import Pool, Shared
from jobs.server.problems import Scrubber
from jobs.server.tokens import Principal, TokenRecord, Tokens
from jobs.service.api import JobService, NoSuchJob
from jobs.service.files import StoreFiles
from jobs.service.views import EventView, JobView

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True)
class Auth:
    """Who may ask. tokens: None: anybody may, as anyone; only for addresses of this machine.
    audit: None: no log is kept."""

    tokens: Tokens | None
    audit: Audit | None = None


class Context:
    """The parts of one app, made once."""

    def __init__(
        self,
        service: JobService,
        files: StoreFiles,
        auth: Auth,
        options: HttpOptions,
        clean: Scrubber,
    ) -> None:
        self.service, self.files, self.auth = service, files, auth
        self.options, self.clean = options, clean
        self.metrics, self.limiter = Metrics(), Limiter(options)
        self._pool = Pool(options.threads, options.waiting)
        self.statuses: Shared[str, JobView] = Shared(self._status, options.status_s)
        self.histories: Shared[tuple[str, int], list[EventView]] = Shared(
            self._events, options.status_s, most=1000
        )
        self.records: Shared[str, TokenRecord | None] = Shared(self._record, options.token_s)
        self.ready: Shared[None, None] = Shared(self._check, 2.0)
        self.progress: dict[str, tuple[JobView, bytes]] = {}  # of routes.events
        self.watching = 0
        self._used: dict[str, date] = {}

    async def call(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of a call that blocks."""
        return await self._pool.run(call, *args, **kwargs)

    async def job(self, job_id: str, who: Principal) -> JobView:
        """The job, if it is shown to them. Raises NoSuchJob, as if it did not exist."""
        view = await self.statuses.get(job_id)
        if not who.sees(view.owner):
            raise NoSuchJob(f"no job {job_id!r}; GET /v1/jobs lists yours")
        return view

    async def note_use(self, token_id: str) -> None:
        """The token is used today: written down once a day, if the store lets it."""
        today = utc_now().date()
        if self.auth.tokens is None or self._used.get(token_id) == today:
            return
        self._used[token_id] = today
        with suppress(ClusterError):
            await self.call(self.auth.tokens.note_use, token_id, today)

    def log(
        self,
        request: Request,
        action: str,
        who: Principal | None,
        status: int,
        *,
        job_id: str | None = None,
        detail: str = "",
    ) -> None:
        """An entry of the audit log."""
        if self.auth.audit is None:
            return
        entry = Entry(
            at=utc_now(),
            action=action,
            owner=None if who is None else who.owner,
            token_id=None if who is None else who.token_id,
            address=None if request.client is None else request.client.host,
            job_id=job_id,
            status=status,
            detail=detail[:300],
        )
        self.auth.audit.add(entry)

    async def _status(self, job_id: str) -> JobView:
        self.metrics.status_reads.inc()
        return await self.call(self.service.status, job_id)

    async def _events(self, key: tuple[str, int]) -> list[EventView]:
        return await self.call(self.service.events, *key)

    async def _record(self, token_id: str) -> TokenRecord | None:
        assert self.auth.tokens is not None
        return await self.call(self.auth.tokens.read, token_id)

    async def _check(self, _: None) -> None:
        await self.call(self.files.check)


def context_of(request: Request) -> Context:
    """The context of the app that has the request."""
    found: Context = request.app.state.context
    return found


InContext = Annotated[Context, Depends(context_of)]
