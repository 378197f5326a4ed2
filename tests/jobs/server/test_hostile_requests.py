"""Requests that mean harm, or are nonsense, and what is answered: always a problem, never a 5xx,
nothing of the server's own."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest

from cluster.clock import utc_now
from cluster.storage.open import open_store
from jobs.server.tokens import _checksum
from jobs.service.views import JobFilter
from jobs.spec import JobSpec
from tests.support.httpapp import World, world

JOBS = "/v1/jobs"
JSON = {"Content-Type": "application/json"}


@dataclass(frozen=True)
class Case:
    """A request, and the status and code of its answer. auth: makes the Authorization header."""

    name: str
    status: int
    code: str
    path: str = JOBS
    method: str = "GET"
    body: bytes | str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    auth: Callable[[World], str | None] = lambda api: f"Bearer {api.token()}"
    says: str = ""


def job(name: str, says: str = "", status: int = 422, code: str = "invalid", **fields: Any) -> Case:
    """A submission with these fields."""
    body = json.dumps({"count": 10} | fields)
    return Case(name, status, code, JOBS, "POST", body, JSON, says=says)


def text(
    name: str, body: bytes | str, status: int = 422, code: str = "invalid", says: str = ""
) -> Case:
    """A submission with this body."""
    return Case(name, status, code, JOBS, "POST", body, JSON, says=says)


def path(
    name: str, of: str, status: int = 404, code: str = "not_found", method: str = "GET"
) -> Case:
    return Case(name, status, code, of, method)


def bearer(name: str, auth: Callable[[World], str | None], status: int = 401) -> Case:
    code = "unauthenticated" if status == 401 else "forbidden"
    return Case(name, status, code, auth=auth)


def _expired(api: World) -> str:
    made = utc_now() - timedelta(hours=2)
    end = made + timedelta(hours=1)
    return f"Bearer {api.tokens.create('ada', ['admin'], made, by='x', expires_at=end)[0]}"


def _revoked(api: World) -> str:
    token, record = api.tokens.create("ada", ["admin"], utc_now(), by="x")
    api.tokens.revoke(record.token_id, utc_now())
    return f"Bearer {token}"


def _forged(api: World) -> str:
    head = api.token()[:17] + "A" * 43
    return f"Bearer {head}{_checksum(head)}"


def _unknown(_: World) -> str:
    head = "un0_" + "z" * 12 + "_" + "A" * 43
    return f"Bearer {head}{_checksum(head)}"


DEEP = "[" * 50_000 + "]" * 50_000
CASES = [
    # Paths
    path("dot segments", "/v1/jobs/../../etc/passwd"),
    path("encoded dot segments", "/v1/jobs/%2e%2e%2f%2e%2e%2fetc%2fpasswd"),
    path("doubly encoded", "/v1/jobs/%252e%252e%252fetc"),
    path("backslashes", "/v1/jobs/..%5c..%5cetc", 422, "invalid"),
    path("dots alone", "/v1/jobs/%2e%2e", 422, "invalid"),
    path("a hidden name", "/v1/jobs/.probe", 422, "invalid"),
    path("a null byte", "/v1/jobs/job%00.json", 422, "invalid"),
    path("a line break", "/v1/jobs/job%0d%0aSet-Cookie:x", 422, "invalid"),
    path("a line break at the end", "/v1/jobs/job%0a", 422, "invalid"),
    path("a path that is not UTF-8", "/v1/jobs/%ff%fe", 422, "invalid"),
    path("a long id", "/v1/jobs/" + "a" * 129, 422, "invalid"),
    path("fullwidth letters", "/v1/jobs/" + quote("\uff4a\uff4f\uff42"), 422, "invalid"),
    path("right-to-left override", "/v1/jobs/" + quote("job\u202e"), 422, "invalid"),
    path("a glob", "/v1/jobs/*", 422, "invalid"),
    path("SQL in an id", "/v1/jobs/" + quote("x' OR '1'='1"), 422, "invalid"),
    path("a template in an id", "/v1/jobs/" + quote("{{7*7}}"), 422, "invalid"),
    path("an id that is not there", "/v1/jobs/absent", 404, "no_such_job"),
    path("results by path", "/v1/jobs/known/results/..%2f..%2fspec.json"),
    path("a shard below 0", "/v1/jobs/known/results/-1", 422, "invalid"),
    path("an endless shard", "/v1/jobs/known/results/" + "9" * 400, 422, "invalid"),
    path("a shard that is no number", "/v1/jobs/known/results/1e3", 422, "invalid"),
    path("an unknown path", "/admin"),
    path("a method that is not there", JOBS, 405, "method_not_allowed", "DELETE"),
    path("TRACE", JOBS, 405, "method_not_allowed", "TRACE"),
    # Filters
    path("SQL as a state", f"{JOBS}?state=" + quote("x'; DROP TABLE jobs;--"), 422, "invalid"),
    path("SQL as a label", f"{JOBS}?label=" + quote("' OR 1=1--"), 200, ""),
    path("a label without a value", f"{JOBS}?label=team", 422, "invalid"),
    path("a label of nothing", f"{JOBS}?label==x", 422, "invalid"),
    path("a long label", f"{JOBS}?label=" + "a" * 400 + "%3Db", 422, "invalid"),
    path("17 labels", f"{JOBS}?" + "&".join(f"label=a{i}%3Db" for i in range(17)), 422, "invalid"),
    path("SQL as an owner", f"{JOBS}?owner=" + quote("ada' OR '1'='1"), 403, "forbidden"),
    path("another's jobs", f"{JOBS}?owner=bob", 403, "forbidden"),
    path("a negative page", f"{JOBS}?page_size=-1", 422, "invalid"),
    path("an endless page", f"{JOBS}?page_size=" + "9" * 5000, 422, "invalid"),
    path("a forged page token", f"{JOBS}?page_token=" + quote("../../jobs"), 422, "invalid"),
    path("a long page token", f"{JOBS}?page_token=" + "a" * 3000, 422, "invalid"),
    path("a pickle as a page token", f"{JOBS}?page_token=gASVCgAAAAAAAACM", 422, "invalid"),
    path("a time without a zone", f"{JOBS}?since=2026-01-01T00:00", 422, "invalid"),
    path("no time", f"{JOBS}?since=yesterday", 422, "invalid"),
    Case("no event number", 422, "invalid", f"{JOBS}/known/events", headers={"Last-Event-ID": "x"}),
    Case("a far event", 422, "invalid", f"{JOBS}/known/events",
         headers={"Last-Event-ID": "9" * 40}),
    # Bodies
    text("no body", b""),
    text("not JSON", "{count: 1}", says="is not JSON"),
    text("YAML", "count: 1", says="is not JSON"),
    text("a YAML bomb", "a: &a [x]\nb: &b [*a,*a]\ncount: [*b,*b]", says="is not JSON"),
    text("a list", "[]"),
    text("null", "null"),
    text("a number", "5"),
    text("not UTF-8", b'{"count": 1, "owner": "\xff"}', 400, "bad_request"),
    text("a body of 2 MB", b'{"count": 1, "x": "' + b"a" * 2**21 + b'"}', 413, "too_large"),
    text("nested deep", '{"count": ' + DEEP + "}", 400, "bad_request"),
    text("nested deep in classes", '{"count": 1, "classes": ' + "[" * 500 + "]" * 500 + "}"),
    text("an endless number", '{"count": ' + "9" * 5000 + "}", 400, "bad_request"),
    text("NaN", '{"count": NaN}'),
    text("infinity", '{"count": 1, "energy_budget": Infinity}'),
    text("a float beyond all", '{"count": 1e999}'),
    text("many unknown fields", json.dumps({f"f{i}": i for i in range(20_000)})),
    text("prototype pollution", '{"count": 1, "__proto__": {"admin": true}}', says="unknown field"),
    Case("a form", 422, "invalid", JOBS, "POST", "count=1"),
    Case("text", 422, "invalid", JOBS, "POST", '{"count": 1}', {"Content-Type": "text/plain"}),
    Case("XML", 422, "invalid", JOBS, "POST", "<!DOCTYPE x SYSTEM '//evil/x.dtd'>",
         {"Content-Type": "application/xml"}),
    Case("a pickle as a body", 422, "invalid", JOBS, "POST", b"\x80\x04\x95.",
         {"Content-Type": "x/pickle"}),
    Case("a length that is none", 400, "bad_request", JOBS, "POST", "{}",
         JSON | {"Content-Length": "-5"}),
    # Fields
    job("a count of none", "greater than or equal to 1", count=0),
    job("a count of text", "not a whole number", count="ten"),
    job("an exponent bomb", count="1e999999999"),
    job("a count beyond all", count=2**63),
    job("a count in Arabic digits", "write its digits as 0 to 9", count="١٢"),
    job("a YAML bomb in a string", "not a whole number", count="&a [*a,*a,*a]"),
    job("a boolean count", count=True),
    job("an owner that is another", "leave it out", owner="bob"),
    job("an owner of control characters", "control character", owner="ada\x00"),
    job("a model by path", "no model of this service", model="/etc/passwd"),
    job("a model by relative path", "no model of this service", model="../../secrets.pt"),
    job("a model by URL", "no model of this service", model="http://169.254.169.254/latest"),
    job("a model by pickle", "no model of this service", model="evil.pkl"),
    job("a model of half a character", "unicode", model="\ud800"),
    job("a long model", "no model of this service", model="a" * 100_000),
    job("a job id with dots", job_id="../../../etc/cron.d/x"),
    job("a job id of a store's own", job_id=".tmp"),
    job("a job id with a line break", job_id="job\n"),
    job("a job id that is taken", "already in the store", job_id="known"),
    job("a label with an escape sequence", "control character", labels={"a": "\x1b[2J"}),
    job("a label without a name", "has no name", labels={"": "x"}),
    job("labels that are nested", labels={"a": {"b": "c"}}),
    job("too many labels", "at most 64", labels={str(i): "x" for i in range(65)}),
    job("a label of long text", "too long", labels={"a": "x" * 257}),
    job("too many classes", "at most 10000", classes=list(range(10_001))),
    job("a class of half a character", "no name of a class", classes=["\udfff"]),
    job("a weight of nothing", "must be > 0", classes={"Bag": 0}),
    job("SQL as a class", classes=["'; DROP TABLE images;--\n"]),
    job("a deadline without a zone", "time zone is missing", deadline="2026-12-01T00:00"),
    job("a priority beyond all", priority=101),
    job("a field that is not the job's", "unknown field", store="file:///etc"),
    job("an address", "unknown field", address="ray://10.0.0.1:10001"),
    # Keys
    Case("an empty key", 422, "invalid", JOBS, "POST", '{"count": 1}',
         JSON | {"Idempotency-Key": ""}),
    Case("a key of 256", 422, "invalid", JOBS, "POST", '{"count": 1}',
         JSON | {"Idempotency-Key": "k" * 256}),
    Case("a key with a space", 422, "invalid", JOBS, "POST", '{"count": 1}',
         JSON | {"Idempotency-Key": "a b"}),
    Case("a reason in lines", 422, "invalid", f"{JOBS}/known/cancel", "POST",
         '{"reason": "a\\nb"}', JSON),
    Case("a long reason", 422, "invalid", f"{JOBS}/known/cancel", "POST",
         json.dumps({"reason": "x" * 501}), JSON),
    Case("more than a reason", 422, "invalid", f"{JOBS}/known/cancel", "POST",
         '{"by": "root"}', JSON),
    # Tokens
    bearer("no token", lambda _: None),
    bearer("an empty token", lambda _: "Bearer "),
    bearer("Basic", lambda _: "Basic YWRhOmFkYQ=="),
    bearer("nonsense", lambda _: "Bearer nonsense"),
    bearer("a JWT", lambda _: "Bearer eyJhbGciOiJub25lIn0.eyJzdWIiOiJhZG1pbiJ9."),
    bearer("a path as an id", lambda _: "Bearer un0_../../token_" + "a" * 49),
    bearer("a long token", lambda _: "Bearer un0_" + "a" * 10_000),
    bearer("a token of unknown id", _unknown),
    bearer("a forged secret", _forged),
    bearer("a truncated token", lambda api: f"Bearer {api.token()[:-1]}"),
    bearer("two tokens", lambda api: f"Bearer {api.token()} {api.token()}"),
    bearer("an expired token", _expired),
    bearer("a revoked token", _revoked),
    bearer("an under-scoped token", lambda api: f"Bearer {api.token(scopes=['jobs:write'])}", 403),
]  # fmt: skip


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One app for all: no request may harm it for the next."""
    with world(open_store(str(tmp_path_factory.mktemp("store")), probe=False)) as made:
        made.service.submit(JobSpec(count=20, job_id="known", owner="ada"), by="ada")
        yield made


def test_there_are_at_least_sixty() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_answer_is_as_documented(api: World, case: Case) -> None:
    jobs = len(api.service.jobs(JobFilter()).jobs)
    auth = case.auth(api)
    headers = case.headers | ({} if auth is None else {"Authorization": auth})
    answer = api.client.request(case.method, case.path, headers=headers, content=case.body)
    assert answer.status_code == case.status, answer.text
    assert len(api.service.jobs(JobFilter()).jobs) == jobs
    assert len(answer.content) < 20_000
    if case.status < 400:
        return
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == case.code
    assert case.says in problem["detail"]
    for secret in (api.store.config.uri, "file:", "Traceback", '.py"', "/srv/"):
        assert secret not in answer.text
    if case.status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer realm=")
        if auth is not None and auth.startswith("Bearer un0_"):
            assert auth.removeprefix("Bearer ")[:40] not in answer.text
