"""The job service at another address: the same verbs, by HTTP, repeated until they are answered."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import quote as quoted
from urllib.parse import urlsplit

import httpx2
import stamina
from pydantic import BaseModel, TypeAdapter, ValidationError

from cluster.clock import monotonic_s
from cluster.errors import ClusterError, Fatal, NotFound, Retryable, UserError
from jobs.service.api import Conflict, KeyInFlight, KeyReused, NoSuchJob, OverLimit
from jobs.service.files import MOST_FILES, ResultFile, ResultsPage
from jobs.service.views import (
    PAGE_SIZE,
    EventView,
    JobFilter,
    JobPage,
    JobView,
    ModelView,
    Progress,
    Quote,
    Results,
)
from jobs.spec import JobSpec

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")

_KINDS: dict[str, type[ClusterError]] = {
    "no_such_job": NoSuchJob,
    "not_found": NotFound,
    "conflict": Conflict,
    "key_reused": KeyReused,
    "key_in_flight": KeyInFlight,
    "over_limit": OverLimit,
}
_AGAIN = (408, 429, 502, 503, 504)
_IN_MEMORY = 64 * 2**20  # bytes of a file of results; a larger one goes to disk
_END = "end"
_RETRY_S = 0.5


class _Later(Exception):
    """The answer was to try again. after_s: in so many seconds; None where it does not say."""

    def __init__(self, error: ClusterError, after_s: float | None) -> None:
        super().__init__(str(error))
        self.error, self.after_s = error, after_s


class HttpService:
    """``JobService`` at a server's address. Thread-safe; ``close`` it.

    server: such as http://127.0.0.1:8000. token: un0_…; None where the server asks for none.
    timeout_s: of a request. patience_s: how long requests are repeated: after lost connections,
    429 and 503, when the server says, else with a growing random wait.
    by of its verbs is not sent: who asks is known by the token.
    Raises what ``JobService`` raises; Retryable when the server stays away.
    """

    def __init__(
        self,
        server: str,
        token: str | None = None,
        *,
        timeout_s: float = 30.0,
        patience_s: float = 60.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self.server = _checked(server)
        self._patience_s = patience_s
        headers = {"User-Agent": "un0"}
        if token is not None:
            if not token.isascii() or not token.isprintable() or not token.strip():
                raise UserError("UN0_TOKEN is no token; copy it whole, as it was shown once")
            headers["Authorization"] = f"Bearer {token.strip()}"
        self._http = httpx2.Client(
            base_url=self.server, headers=headers, timeout=timeout_s, transport=transport
        )

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def submit(
        self,
        spec: JobSpec,
        *,
        by: str,  # noqa: ARG002 (the token says)
        idempotency_key: str | None = None,
    ) -> JobView:
        """As ``JobService.submit``. Without a key it gets one of its own, so that the request can
        be repeated when its answer is lost."""
        key = idempotency_key or uuid.uuid4().hex
        return self._post(JobView, "/v1/jobs", _body(spec), {"Idempotency-Key": key})

    def quote(self, spec: JobSpec) -> Quote:
        return self._post(Quote, "/v1/quote", _body(spec))

    def status(self, job_id: str) -> JobView:
        return self._get(JobView, _path(job_id))

    def jobs(self, wanted: JobFilter, page_size: int = PAGE_SIZE, page_token: str = "") -> JobPage:
        asked: dict[str, Any] = {"page_size": page_size}
        if page_token:
            asked["page_token"] = page_token
        if wanted.state is not None:
            asked["state"] = wanted.state.value
        if wanted.owner is not None:
            asked["owner"] = wanted.owner
        if wanted.label:
            asked["label"] = [f"{name}={value}" for name, value in wanted.label.items()]
        if wanted.since is not None:
            asked["since"] = wanted.since.isoformat()
        return self._get(JobPage, "/v1/jobs", asked)

    def cancel(self, job_id: str, *, by: str, reason: str = "") -> JobView:  # noqa: ARG002
        return self._post(JobView, f"{_path(job_id)}/cancel", {"reason": reason})

    def pause(self, job_id: str, *, by: str, reason: str = "") -> JobView:  # noqa: ARG002
        return self._post(JobView, f"{_path(job_id)}/pause", {"reason": reason})

    def resume(self, job_id: str, *, by: str, reason: str = "") -> JobView:  # noqa: ARG002
        return self._post(JobView, f"{_path(job_id)}/resume", {"reason": reason})

    def results(self, job_id: str) -> Results:
        page = self._results(job_id, page_size=1)
        return Results(**{name: getattr(page, name) for name in Results.model_fields})

    def uris(self, job_id: str) -> Iterator[str]:
        """Addresses on the server: fetch them with the token."""
        after = -1
        while files := self.page(job_id, after):
            for file in files:
                yield f"{self.server}{_path(job_id)}/results/{file.shard}"
            after = files[-1].shard

    def models(self) -> list[ModelView]:
        """The models that jobs may name."""
        answer = self._ask("GET", "/v1/models")
        return TypeAdapter(list[ModelView]).validate_json(answer.content)

    def events(self, job_id: str, after: int = 0) -> list[EventView]:
        def read() -> list[EventView]:
            found = self._stream(job_id, after, follow=False)
            return [each for each in found if isinstance(each, EventView)]

        return self._retrying(read)

    def follow(self, job_id: str, after: int = 0) -> Iterator[EventView | Progress]:
        """The job's events, each once and in order, and its progress, until it has ended. Goes on
        where it was when the connection is lost."""
        heard_s = monotonic_s()
        while True:
            try:
                for each in self._stream(job_id, after, follow=True):
                    heard_s = monotonic_s()
                    if isinstance(each, EventView):
                        after = each.id
                    yield each
                return
            except (_Later, httpx2.TransportError) as error:
                if monotonic_s() - heard_s > self._patience_s:
                    raise Retryable(f"{self.server}: events of job {job_id} do not come") from error
                wait_s = getattr(error, "after_s", None) or _RETRY_S
                time.sleep(min(wait_s, self._patience_s))
            self.status(job_id)  # once the server answers again; raises if it stays away

    def page(self, job_id: str, after: int = -1, limit: int = MOST_FILES) -> list[ResultFile]:
        """As ``JobFiles.page``."""
        token = {} if after < 0 else {"page_token": str(after)}
        return list(self._results(job_id, page_size=limit, **token).files)

    @contextmanager
    def reader(self, job_id: str, shard: int) -> Iterator[BinaryIO]:
        """As ``JobFiles.reader``: the file is fetched whole, into memory or a temporary file."""

        def fetch() -> BinaryIO:
            file = tempfile.SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 (the caller closes it)
            try:
                with self._http.stream("GET", f"{_path(job_id)}/results/{shard}") as answer:
                    if answer.status_code != 200:
                        answer.read()
                        _check(answer)
                    for data in answer.iter_bytes():
                        file.write(data)
            except BaseException:
                file.close()
                raise
            file.seek(0)
            return cast(BinaryIO, file)

        file = self._retrying(fetch)
        with file:
            yield file

    def _results(self, job_id: str, **asked: Any) -> ResultsPage:
        return self._get(ResultsPage, f"{_path(job_id)}/results", asked)

    def _stream(self, job_id: str, after: int, *, follow: bool) -> Iterator[EventView | Progress]:
        """One connection's frames. Raises _Later if it ends without the last one."""
        headers = {"Last-Event-ID": str(after), "Accept": "text/event-stream"}
        asked = {} if follow else {"follow": "false"}
        path = f"{_path(job_id)}/events"
        with self._http.stream("GET", path, params=asked, headers=headers) as answer:
            if answer.status_code != 200:
                answer.read()
                _check(answer)
            for frame in httpx2.EventSource(answer):
                if frame.event == "history":
                    yield EventView.model_validate_json(frame.data)
                elif frame.event == "progress":
                    yield Progress.model_validate_json(frame.data)
                elif frame.event == _END:
                    return
        raise _Later(Retryable(f"{self.server}: the stream of events was cut off"), 0.0)

    def _get(self, kind: type[M], path: str, asked: dict[str, Any] | None = None) -> M:
        return _read(kind, self._ask("GET", path, params=asked))

    def _post(
        self, kind: type[M], path: str, body: Any, headers: dict[str, str] | None = None
    ) -> M:
        return _read(kind, self._ask("POST", path, json=body, headers=headers))

    def _ask(self, method: str, path: str, **asked: Any) -> httpx2.Response:
        def once() -> httpx2.Response:
            answer = self._http.request(method, path, **asked)
            _check(answer)
            return answer

        return self._retrying(once)

    def _retrying(self, call: Callable[[], T]) -> T:
        """What the call returns. Repeating is safe: what changes something says the same twice, or
        has a key."""
        try:
            for tries in stamina.retry_context(
                _waits, attempts=None, timeout=self._patience_s, wait_max=5.0
            ):
                with tries:
                    return call()
            raise AssertionError("stamina raises what the last try did")
        except _Later as later:
            raise later.error from None
        except httpx2.TransportError as error:
            why = str(error) or type(error).__name__
            raise Retryable(f"{self.server} does not answer: {why}; check UN0_SERVER") from error
        raise AssertionError("it is tried until there is an answer or an error")


def _waits(error: Exception) -> bool | float:
    """Whether to try again: stamina's hook. A number: after so many seconds."""
    if isinstance(error, _Later):
        return True if error.after_s is None else error.after_s
    return isinstance(error, httpx2.TransportError) and not isinstance(
        error, httpx2.UnsupportedProtocol
    )


def _check(answer: httpx2.Response) -> None:
    """Raise what the answer says is wrong."""
    status = answer.status_code
    if status < 400:
        return
    problem: dict[str, Any] = {}
    with suppress(ValueError):
        said = answer.json()
        problem = said if isinstance(said, dict) else {}
    code, detail = str(problem.get("code", "")), str(problem.get("detail", ""))
    message = detail or f"the server answered {status} {answer.reason_phrase}"
    if code in _KINDS:
        error: ClusterError = _KINDS[code](message)
    elif status < 500:
        error = UserError(message)
    else:
        error = Retryable(message) if status in _AGAIN else Fatal(message)
    if code == "key_in_flight" or (status in _AGAIN and code != "over_limit"):
        after = answer.headers.get("Retry-After", "")
        raise _Later(error, float(after) if after.isdecimal() and len(after) < 6 else None)
    raise error


def _read(kind: type[M], answer: httpx2.Response) -> M:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        raise Fatal(
            f"{answer.url}: not a {kind.__name__} that this version can read; is it a server of "
            f"un0, of the same version? ({error.error_count()} fields differ)"
        ) from None


def _body(spec: JobSpec) -> dict[str, Any]:
    return spec.model_dump(mode="json", exclude_defaults=True)


def _path(job_id: str) -> str:
    return f"/v1/jobs/{quoted(job_id, safe='')}"


def _checked(server: str) -> str:
    address = urlsplit(server.strip())
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"server {server!r}: write http://HOST:PORT, or https://HOST")
    if address.username or address.password or address.query or address.fragment:
        raise UserError("the server's address must hold no credentials; give the token apart")
    return server.strip().rstrip("/")
