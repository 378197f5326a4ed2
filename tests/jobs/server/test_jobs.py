"""``/v1/jobs``: who sees what, what repeats safely, and how lists are paged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from cluster.clock import utc_now
from cluster.errors import Retryable
from cluster.states import JobState
from cluster.storage.object_store import ObjectStore
from jobs.server.options import HttpOptions
from jobs.server.tokens import TOKEN_ID
from jobs.service.views import Reason
from tests.support.httpapp import QUICK, World, world
from tests.support.jobfactory import workload, write_job


@pytest.fixture
def api(local: ObjectStore) -> Iterator[World]:
    with world(local) as made:
        yield made


def made(api: World, headers: dict[str, str], **spec: Any) -> Any:
    answer = api.client.post("/v1/jobs", json={"count": 10} | spec, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def test_a_job_is_visible_at_once_where_it_says(api: World) -> None:
    ada = api.headers()
    answer = api.client.post("/v1/jobs", json={"count": "10k"}, headers=ada)
    assert answer.status_code == 201
    job = answer.json()
    assert (job["state"], job["owner"], job["counts"]["total"]) == ("queued", "ada", 10_000)
    assert api.client.get(answer.headers["location"], headers=ada).json() == job


def test_the_owner_is_the_tokens(api: World) -> None:
    ada = api.headers()
    assert made(api, ada, owner="ada")["owner"] == "ada"
    for path in ("/v1/jobs", "/v1/quote"):
        refused = api.client.post(path, json={"count": 1, "owner": "bob"}, headers=ada)
        assert refused.status_code == 422
        assert refused.json()["errors"][0]["pointer"] == "/owner"


def test_a_token_sees_its_owners_jobs_only(api: World) -> None:
    ada, bob, root = api.headers(), api.headers("bob"), api.headers("root", ["admin"])
    job_id = made(api, ada)["job_id"]
    theirs = made(api, bob)["job_id"]
    assert [j["job_id"] for j in api.client.get("/v1/jobs", headers=ada).json()["jobs"]] == [job_id]
    for method, path in [
        ("GET", ""), ("GET", "/events"), ("GET", "/results"), ("GET", "/results/0"),
        ("POST", "/cancel"), ("POST", "/pause"), ("POST", "/resume"),
    ]:  # fmt: skip
        refused = api.client.request(method, f"/v1/jobs/{job_id}{path}", headers=bob)
        absent = api.client.request(method, f"/v1/jobs/absent{path}", headers=bob)
        assert (refused.status_code, absent.status_code) == (404, 404)
        assert refused.json()["code"] == absent.json()["code"] == "no_such_job"
    assert api.service.status(job_id).state == JobState.QUEUED
    seen = api.client.get("/v1/jobs", headers=root).json()["jobs"]
    assert {job["job_id"] for job in seen} == {job_id, theirs}
    assert api.client.get(f"/v1/jobs/{job_id}", headers=root).status_code == 200
    assert api.client.get("/v1/jobs?owner=bob", headers=ada).status_code == 403
    seen = api.client.get("/v1/jobs?owner=bob", headers=root).json()["jobs"]
    assert [job["job_id"] for job in seen] == [theirs]


def test_a_key_repeated_is_the_same_job(api: World) -> None:
    ada, bob = api.headers(), api.headers("bob")
    key = {"Idempotency-Key": "once"}
    first, again = made(api, ada | key), made(api, ada | key)
    assert first == again
    assert made(api, bob | key)["job_id"] != first["job_id"]  # keys are the owner's
    other = api.client.post("/v1/jobs", json={"count": 11}, headers=ada | key)
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")


def test_cancel_pause_and_resume_repeat_and_conflict(api: World) -> None:
    ada = api.headers()
    job_id = made(api, ada)["job_id"]

    def ask(verb: str, **body: Any) -> Any:
        return api.client.post(f"/v1/jobs/{job_id}/{verb}", headers=ada, **body)

    for verb, state in [("pause", "paused"), ("resume", "queued"), ("cancel", "cancelled")]:
        for _ in range(2):
            answer = ask(verb, json={"reason": "because"})
            assert (answer.status_code, answer.json()["state"]) == (200, state)
    for verb in ("pause", "resume"):
        refused = ask(verb)
        problem = refused.json()
        assert (refused.status_code, problem["state"]) == (409, "cancelled")
        assert "file:" not in problem["detail"]
    told = [event.message for event in api.service.events(job_id)]
    assert told == ["submitted", "paused: because", "queued: because", "cancelled: because"]
    api.client.portal.call(api.app.state.context.call, api.audit.flush)
    actions = [entry["action"] for entry in audited(api)]
    assert actions == ["jobs.submit"] + ["jobs.pause"] * 2 + ["jobs.resume"] * 2 + [
        "jobs.cancel", "jobs.cancel", "jobs.pause", "jobs.resume",
    ]  # fmt: skip


def audited(api: World) -> list[dict[str, Any]]:
    api.audit.flush()
    files = [api.store.get(info.key) for info in api.store.list("service/audit/")]
    return [json.loads(line) for data in files for line in data.splitlines()]


def test_the_audit_log_says_who(api: World) -> None:
    ada = api.headers()
    made(api, ada)
    api.client.get("/v1/jobs", headers={"Authorization": "Bearer un0_nonsense"})
    api.client.post("/v1/jobs", json={"count": 1}, headers=api.headers("bob", ["jobs:read"]))
    entries = audited(api)
    said = [(entry["action"], entry.get("owner"), entry["status"]) for entry in entries]
    assert said == [
        ("jobs.submit", "ada", 201),
        ("auth.token", None, 401),
        ("auth.scope", "bob", 403),
    ]
    assert TOKEN_ID.fullmatch(entries[0]["token_id"])
    assert "nonsense" not in json.dumps(entries)


def test_lists_are_paged_and_filtered(api: World) -> None:
    ada = api.headers()
    ids = [
        made(api, ada, labels={"team": "vision" if i % 2 else "audio", "n": str(i)})["job_id"]
        for i in range(7)
    ]

    def listed(query: str) -> list[str]:
        found, token = [], ""
        while True:
            page = api.client.get(f"/v1/jobs?{query}&page_token={token}", headers=ada).json()
            assert len(page["jobs"]) <= 3
            found += [job["job_id"] for job in page["jobs"]]
            token = page["next_page_token"]
            if not token:
                return found

    assert listed("page_size=3") == ids[::-1]
    assert listed("page_size=3&label=team%3Dvision") == ids[1::2][::-1]
    assert listed("page_size=3&label=team%3Dvision&label=n%3D3") == [ids[3]]
    api.service.move(ids[2], JobState.RUNNING)
    assert listed("page_size=3&state=running") == [ids[2]]
    since = (api.service.status(ids[5]).created_at).isoformat().replace("+", "%2B")
    assert listed(f"page_size=3&since={since}") == [ids[6], ids[5]]
    assert len(api.client.get("/v1/jobs?page_size=99999", headers=ada).json()["jobs"]) == 7
    assert len(api.client.get("/v1/jobs?page_size=0", headers=ada).json()["jobs"]) == 7
    refused = api.client.get("/v1/jobs?page_token=garbage", headers=ada)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid")


def test_an_etag_says_whether_a_job_has_changed(api: World) -> None:
    ada = api.headers()
    path = f"/v1/jobs/{made(api, ada)['job_id']}"
    tag = api.client.get(path, headers=ada).headers["etag"]
    same = api.client.get(path, headers=ada | {"If-None-Match": f'"x", {tag}'})
    assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", tag)
    api.client.post(f"{path}/pause", headers=ada)
    changed = api.client.get(path, headers=ada | {"If-None-Match": tag})
    assert (changed.status_code, changed.json()["state"]) == (200, "paused")


def test_many_looks_at_a_job_are_one_read(local: ObjectStore) -> None:
    with world(local, options=HttpOptions(status_s=60)) as api:
        ada = api.headers()
        path = f"/v1/jobs/{made(api, ada)['job_id']}"
        reads = api.service.calls["status"]
        for _ in range(50):
            assert api.client.get(path, headers=ada).status_code == 200
        assert api.service.calls["status"] == reads  # the submission put it there
        api.client.post(f"{path}/pause", headers=ada)
        assert api.client.get(path, headers=ada).json()["state"] == "paused"


@pytest.mark.parametrize(
    ("scope", "may"),
    [
        ("jobs:read", {"GET /v1/jobs", "GET /v1/models", "POST /v1/quote", "GET results"}),
        ("jobs:write", {"POST /v1/jobs", "POST pause"}),
        ("results:read", {"GET results/0"}),
        ("fleet:read", {"GET /metrics"}),
        ("fleet:admin", set()),
    ],
)
def test_each_scope_opens_what_it_says(api: World, scope: str, may: set[str]) -> None:
    write_job(api.store, workload("done", encoding="raw"), shards=[0], finish=False)
    api.service.submit(_spec("done"), by="ada")
    job = "/v1/jobs/done"
    asked = {
        "GET /v1/jobs": ("GET", "/v1/jobs"),
        "GET /v1/models": ("GET", "/v1/models"),
        "POST /v1/quote": ("POST", "/v1/quote"),
        "POST /v1/jobs": ("POST", "/v1/jobs"),
        "POST pause": ("POST", f"{job}/pause"),
        "GET results": ("GET", f"{job}/results"),
        "GET results/0": ("GET", f"{job}/results/0"),
        "GET /metrics": ("GET", "/metrics"),
    }
    headers = api.headers(scopes=[scope])
    got = {}
    for name, (method, path) in asked.items():
        body = (
            {"json": {"count": 1}} if path in ("/v1/jobs", "/v1/quote") and method == "POST" else {}
        )
        answer = api.client.request(method, path, headers=headers, **body)
        got[name] = answer.status_code
        if answer.status_code == 403:
            assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]
    assert {name for name, status in got.items() if status < 300} == may
    assert set(got.values()) <= {200, 201, 403}


def _spec(job_id: str) -> Any:
    from jobs.spec import JobSpec

    return JobSpec(count=20, job_id=job_id, owner="ada")


def test_files_of_results_are_those_in_the_store(api: World) -> None:
    records = write_job(api.store, workload("done", encoding="raw"), shards=[0, 2, 3], finish=False)
    api.service.submit(_spec("done"), by="ada")
    ada = api.headers()
    files, token = [], ""
    for _ in range(3):
        page = api.client.get(
            f"/v1/jobs/done/results?page_size=1&page_token={token}", headers=ada
        ).json()
        files += page["files"]
        token = page["next_page_token"]
    assert [file["shard"] for file in files] == [0, 2, 3]
    assert page["uri"] == "/v1/jobs/done/results"
    for record, file in zip(records, files, strict=True):
        answer = api.client.get(f"/v1/jobs/done/results/{file['shard']}", headers=ada)
        assert answer.content == api.store.get(record.objects[0].key)
        assert answer.headers["etag"] == f'"{file["sha256"]}"'
    assert api.client.get("/v1/jobs/done/results/1", headers=ada).status_code == 404


def test_a_store_that_is_away_is_503_and_says_nothing_of_it(api: World) -> None:
    ada = api.headers()
    job_id = made(api, ada)["job_id"]

    def away(*_: Any, **__: Any) -> Any:
        raise Retryable("connecting to 10.1.2.3 as AKIASECRET failed")

    api.service.status = away
    api.app.state.context.service.jobs = away
    for path in ("/v1/jobs", f"/v1/jobs/{job_id}"):
        answer = api.client.get(path, headers=ada)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        assert "AKIA" not in answer.text


def test_a_fault_of_the_server_tells_a_number_only(api: World) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("secret")

    api.app.state.context.service.jobs = broken
    answer = api.client.get("/v1/jobs", headers=api.headers())
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert "secret" not in answer.text
    assert answer.json()["instance"].startswith("urn:uuid:")


def test_requests_of_a_token_are_limited(local: ObjectStore) -> None:
    from dataclasses import replace

    with world(local, options=replace(QUICK, reads=3, failures=2)) as api:
        ada, bob = api.headers(), api.headers("bob")
        answers = [api.client.get("/v1/jobs", headers=ada) for _ in range(4)]
        assert [a.status_code for a in answers] == [200, 200, 200, 429]
        assert answers[0].headers["ratelimit-policy"] == '"reads";q=3;w=60'
        assert 1 <= int(answers[3].headers["retry-after"]) <= 60
        assert api.client.get("/v1/jobs", headers=bob).status_code == 200
        bad = {"Authorization": "Bearer un0_no"}
        answers = [api.client.get("/v1/jobs", headers=bad) for _ in range(3)]
        assert [a.status_code for a in answers] == [401, 401, 429]


def test_a_body_without_a_length_is_cut_off_where_it_is_too_large(api: World) -> None:
    sent: list[int] = []

    def body() -> Iterator[bytes]:
        while len(sent) < 1000:
            sent.append(2**16)
            yield b" " * 2**16

    headers = api.headers() | {"Content-Type": "application/json"}
    answer = api.client.post("/v1/jobs", content=body(), headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (413, "too_large")


def test_a_revoked_token_ends_within_its_time(api: World) -> None:
    text = api.token()
    ada = {"Authorization": f"Bearer {text}"}
    assert api.client.get("/v1/jobs", headers=ada).status_code == 200
    record = api.tokens.all()[0]
    assert api.tokens.last_use(record.token_id) == utc_now().date()
    api.tokens.revoke(record.token_id, utc_now())
    refused = api.client.get("/v1/jobs", headers=ada)
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    soon = utc_now() + timedelta(seconds=60)
    fresh = {"Authorization": f"Bearer {api.token(expires_at=soon)}"}
    assert api.client.get("/v1/jobs", headers=fresh).status_code == 200


def test_without_tokens_only_this_machines_own_requests_are_answered(local: ObjectStore) -> None:
    with world(local, no_auth=True) as api:
        client = api.client
        assert client.get("/v1/jobs").status_code == 200
        assert client.post("/v1/jobs", json={"count": 1, "owner": "bob"}).json()["owner"] == "bob"
        for headers in (
            {"Origin": "https://evil.example"},
            {"Host": "evil.example"},
            {"Origin": "null"},
            {"Host": "127.0.0.1.evil.example"},
            {"Host": "[::1"},
        ):
            assert client.post("/v1/jobs/x/cancel", headers=headers).status_code == 403
        for host in ("localhost:80", "[::1]:8000", "127.0.0.2"):
            assert client.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_models_quotes_health_and_metrics(api: World) -> None:
    ada = api.headers()
    models = api.client.get("/v1/models", headers=ada).json()
    assert [model["name"] for model in models if model["default"]] == ["fashion32/n512"]
    quote = api.client.post("/v1/quote", json={"count": 5}, headers=ada).json()
    assert quote["images_per_hardware"] == {"test device": 5}
    assert api.client.get("/healthz").json() == {"status": "ok"}
    assert api.client.get("/readyz").json() == {"status": "ok"}
    text = api.client.get("/metrics", headers=api.headers(scopes=["fleet:read"])).text
    assert 'un0_http_requests_total{method="POST",route="/v1/quote",status="200"} 1.0' in text


def test_paths_of_the_server_are_not_shown(local: ObjectStore) -> None:
    with world(local) as api:
        api.service.submit(_spec("here"), by="ada")
        where = f"run `un0 serve --store {local.config.uri}`, or --store s3://un0-secret/prefix"
        api.service.move(
            "here",
            JobState.CANCELLED,
            where,
            model="/srv/secret/model.pt",
            spec={"model": "/srv/x/m.pt"},
            reason=Reason(code="waiting_for_server", message=where),
        )
        ada = api.headers()
        for path in ("/v1/jobs", "/v1/jobs/here", "/v1/jobs/here/events"):
            text = api.client.get(path, headers=ada).text
            assert "/srv" not in text
            assert "un0-secret" not in text
            assert local.config.uri not in text
        assert api.client.get("/v1/jobs/here", headers=ada).json()["model"] == "model.pt"
