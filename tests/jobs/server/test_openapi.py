"""The OpenAPI document holds: whatever is sent, no 5xx, and no answer that it does not describe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.storage.object_store import ObjectStore
from jobs.spec import JobSpec
from tests.support.effort import costly, examples
from tests.support.httpapp import ALL, World, world
from tests.support.jobfactory import workload, write_job

OPERATIONS = [
    "GET /healthz", "GET /metrics", "GET /readyz", "GET /v1/jobs", "GET /v1/jobs/{job_id}",
    "GET /v1/jobs/{job_id}/events", "GET /v1/jobs/{job_id}/results",
    "GET /v1/jobs/{job_id}/results/{shard}", "GET /v1/models", "POST /v1/jobs",
    "POST /v1/jobs/{job_id}/cancel", "POST /v1/jobs/{job_id}/pause",
    "POST /v1/jobs/{job_id}/resume", "POST /v1/quote",
]  # fmt: skip


FIRST = ("POST /v1/jobs/{job_id}/pause",)


@pytest.fixture
def api(local: ObjectStore) -> Iterator[World]:
    with world(local) as made:
        write_job(local, workload("known", encoding="raw"), shards=[0, 1], finish=False)
        made.service.submit(JobSpec(count=20, job_id="known", owner="ada"), by="ada")
        made.service.cancel("known", by="ada")  # so that its stream of events ends
        yield made


def test_the_document_has_every_route_and_every_error_as_a_problem(api: World) -> None:
    document = api.client.get("/openapi.json").json()
    found = [f"{m.upper()} {path}" for path, ms in document["paths"].items() for m in ms]
    assert sorted(found) == OPERATIONS
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                if int(status) >= 400:
                    assert list(answer["content"]) == ["application/problem+json"], path
    assert "HTTPValidationError" not in document["components"]["schemas"]


@pytest.mark.parametrize("label", costly(*FIRST, *sorted({*OPERATIONS} - {*FIRST}), fast=1))
def test_no_5xx_and_no_undocumented_answer(api: World, label: str) -> None:
    import schemathesis  # takes a second
    from schemathesis.checks import not_a_server_error
    from schemathesis.generation.modes import GenerationMode
    from schemathesis.specs.openapi import checks as of

    checks = [
        not_a_server_error,
        of.status_code_conformance,
        of.content_type_conformance,
        of.response_headers_conformance,
        of.response_schema_conformance,
    ]
    schema = schemathesis.openapi.from_dict(api.client.get("/openapi.json").json())
    method, _, where = label.partition(" ")
    operation = schema[where][method]
    headers = api.headers(scopes=[*ALL, "fleet:read"])
    known = {"job_id": "known"} if "{job_id}" in label else None
    strategies = [
        operation.as_strategy(mode, **kwargs)
        for mode in GenerationMode
        for kwargs in ({}, {"path_parameters": known} if known and "shard" not in label else {})
    ]

    @given(case=st.one_of(strategies), authorised=st.integers(0, 9))
    @settings(
        max_examples=examples(300, fast=6),
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def attempt(case: Any, authorised: int) -> None:
        kwargs = case.as_transport_kwargs(base_url="http://127.0.0.1")
        request = {name: kwargs.get(name) for name in ("params", "json")}
        content = kwargs.get("data")
        sent = dict(kwargs.get("headers") or {}) | (headers if authorised else {})
        response = api.client.request(
            kwargs["method"], kwargs["url"], headers=sent, content=content, **request
        )
        case.validate_response(response, checks=checks)

    attempt()
