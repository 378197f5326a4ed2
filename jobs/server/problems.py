"""Answers to requests that cannot be carried out: problem details (RFC 9457), and no secrets."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from cluster.errors import ClusterError, NotFound, Retryable, StoreGone, UserError
from jobs.service.api import Conflict, KeyInFlight, KeyReused, NoSuchJob, OverLimit
from jobs.spec import JobSpec
from un0.documents import fault
from un0.errors import Un0Error

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS = 20
_MOST_TEXT = 2000  # characters of a message
_CODES = {
    400: "bad_request", 403: "forbidden", 404: "not_found", 405: "method_not_allowed",
    408: "too_slow", 413: "too_large", 415: "unsupported_media_type",
}  # fmt: skip


Where = Literal["body", "query", "path", "header"]


class FieldError(BaseModel):
    """What is wrong with a part of a request. pointer: into the body (RFC 6901), or the name of the
    parameter. value: as given, cut off. problem: what is wrong, and what to do."""

    where: Where
    pointer: str
    value: str | None = None
    problem: str


class Problem(BaseModel):
    """Why a request was not carried out. code: for scripts. detail: for people, with the fix.

    state: the job's, where that is the reason. instance: names the request in the server's log.
    """

    type: str
    title: str
    status: int
    code: str
    detail: str
    errors: list[FieldError] | None = None
    state: str | None = None
    instance: str | None = None


class Refusal(Exception):
    """A request that is not carried out, for a reason that the client may know."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        state: str | None = None,
    ) -> None:
        super().__init__(detail)
        self.status, self.code, self.detail = status, code, detail
        self.errors, self.headers, self.state = list(errors), dict(headers or {}), state

    def response(self) -> Response:
        """The answer."""
        found = Problem(
            type=f"urn:un0:problem:{self.code}",
            title=self.code.replace("_", " ").capitalize(),
            status=self.status,
            code=self.code,
            detail=self.detail[:_MOST_TEXT],
            errors=self.errors or None,
            state=self.state,
            instance=self.headers.pop("instance", None),
        )
        body = json.dumps(found.model_dump(exclude_none=True))  # ASCII: input may not be Unicode
        return Response(body, self.status, self.headers, MEDIA_TYPE)


class Scrubber:
    """Takes out of messages what tells where the server keeps things."""

    def __init__(self, *addresses: str | None) -> None:
        known = {address for address in addresses if address}
        known |= {unquote(urlsplit(address).path) for address in known if address[:5] == "file:"}
        self._known = sorted((word for word in known if len(word) > 1), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for word in self._known:
            text = text.replace(word, "the store")
        return re.sub(r"\b(?:file:///?|s3://)[^\s;,'\")]*", "the store", text)


def refusal_of(error: Exception, clean: Scrubber, *, of_input: bool) -> Refusal | None:
    """The answer for an error of the service; None for one that nobody foresaw.

    of_input: whether what the client sent can have caused a UserError without a kind of its own.
    """
    if isinstance(error, Refusal):
        return error
    text = clean(str(error))
    if isinstance(error, NoSuchJob):
        return Refusal(404, "no_such_job", text)
    if isinstance(error, Conflict):
        return Refusal(409, "conflict", text)
    if isinstance(error, KeyReused):
        return Refusal(422, "key_reused", text)
    if isinstance(error, KeyInFlight):
        return Refusal(409, "key_in_flight", text, headers={"Retry-After": "1"})
    if isinstance(error, OverLimit):
        return Refusal(429, "over_limit", text, headers={"Retry-After": "3600"})
    if isinstance(error, NotFound):
        return Refusal(404, "not_found", "there is no such thing, or no longer")
    known = isinstance(error, UserError | Un0Error) and not isinstance(error, StoreGone)
    if known and of_input:
        return Refusal(422, "invalid", text)
    if known or isinstance(error, Retryable | StoreGone):
        logger.warning("the store: %s", error)
        detail = "the store cannot be used now; try again in some seconds"
        return Refusal(503, "store_unavailable", detail, headers={"Retry-After": "5"})
    return None


def field_errors(errors: Sequence[Any]) -> list[FieldError]:
    """What pydantic found, in the words of the command line's messages."""
    found = []
    for problem in errors[:_MOST_ERRORS]:
        where: Where
        where, *loc = problem["loc"] or ("body",)
        if problem["type"] == "json_invalid":
            detail = problem.get("ctx", {}).get("error", "")
            told = f'is not JSON: {detail}; write an object such as {{"count": 1000}}'
            found.append(FieldError(where="body", pointer="", value=None, problem=told))
            continue
        said = fault(dict(problem) | {"loc": loc}, JobSpec.model_fields)
        parts = ["", *(str(part).replace("~", "~0").replace("/", "~1") for part in loc)]
        pointer = "/".join(parts) if where == "body" else ".".join(map(str, loc))
        found.append(
            FieldError(where=where, pointer=pointer[:200], value=said.shown, problem=said.message)
        )
    return found


def install(app: FastAPI, clean: Scrubber) -> None:
    """Make every error of the app an answer of this kind."""

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        errors = field_errors(error.errors())
        detail = "; ".join(f"{e.pointer or 'the body'}: {e.problem}" for e in errors[:3])
        return Refusal(422, "invalid", clean(detail), errors=errors).response()

    @app.exception_handler(HTTPException)
    async def by_framework(_: Request, error: HTTPException) -> Response:
        code = _CODES.get(error.status_code, "refused")
        refused = Refusal(error.status_code, code, str(error.detail), headers=error.headers)
        return refused.response()

    async def of_service(request: Request, error: Exception) -> Response:
        of_input = getattr(request.state, "input_counts", False)
        refused = refusal_of(error, clean, of_input=of_input)
        return unforeseen(error) if refused is None else refused.response()

    for kind in (Refusal, ClusterError, Un0Error, Exception):
        app.add_exception_handler(kind, of_service)


def unforeseen(error: Exception) -> Response:
    """The answer to what should not happen. The log has the rest, under the same number."""
    instance = f"urn:uuid:{uuid.uuid4()}"
    logger.error("%s", instance, exc_info=error)
    detail = f"something went wrong here; the server's log says more under {instance}"
    return Refusal(500, "internal", detail, headers={"instance": instance}).response()
