"""The Python client, over HTTP and over a store: the same verbs, the same answers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import numpy as np
import pytest

from cluster.errors import Fatal, Retryable, UserError
from cluster.states import JobState
from cluster.storage.object_store import ObjectStore
from jobs import AsyncClient, Client, JobSpec
from jobs.service.api import Conflict, KeyReused, NoSuchJob, OverLimit
from jobs.service.remote import HttpService
from tests.support.httpapp import served
from tests.support.jobfactory import pixels, workload, write_job, write_shard
from tests.support.memory_service import MemoryService


@pytest.fixture
def service() -> MemoryService:
    return MemoryService()


@pytest.fixture(params=["http", "store"])
def client(
    request: pytest.FixtureRequest,
    local: ObjectStore,
    service: MemoryService,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Client]:
    """A client of the service in memory, with the files of the local store."""
    monkeypatch.setattr("jobs.client.StoreService", lambda _, **__: service)
    if request.param == "store":
        with Client(store=local.config.uri, poll_s=0.01) as made:
            yield made
        return
    with served(local, service, monkeypatch) as url, Client(server=url, poll_s=0.01) as made:
        yield made


def test_the_verbs(client: Client, service: MemoryService) -> None:
    job = client.submit(count="1k", labels={"team": "vision"}, idempotency_key="k")
    assert client.submit(count="1k", labels={"team": "vision"}, idempotency_key="k") == job
    with pytest.raises(KeyReused):
        client.submit(count=2, idempotency_key="k")
    other = client.submit(JobSpec(count=5))
    assert client.quote(count=5).images_per_hardware == {"test device": 5}
    assert client.status(job).counts.total == 1000
    assert client.status(job.job_id).labels == {"team": "vision"}
    assert [line.job_id for line in client.jobs()] == [other.job_id, job.job_id]
    assert [line.job_id for line in client.jobs(label={"team": "vision"})] == [job.job_id]
    assert client.page(page_size=1).next_page_token
    assert client.pause(job, "later").state == "paused"
    assert client.resume(job).state == "queued"
    assert client.cancel(job).state == "cancelled"
    assert client.results(job).complete is False
    with pytest.raises(Conflict):
        client.resume(job)
    with pytest.raises(NoSuchJob):
        client.status("absent")
    told = [event.message for event in service.events(job.job_id)]
    assert told == ["submitted", "paused: later", "queued: ", "cancelled: "]
    assert [event.message for event in client.events(job)] == told
    assert [event.id for event in client.events(job, 2, follow=False)] == [3, 4]


def test_many_jobs_come_page_by_page(client: Client, service: MemoryService) -> None:
    for _ in range(120):
        service.submit(JobSpec(count=1), by="x")
    assert len({line.job_id for line in client.jobs()}) == 120
    assert service.calls["jobs"] == 3


def test_wait_returns_when_the_job_has_ended(client: Client, service: MemoryService) -> None:
    job = client.submit(count=1)
    with pytest.raises(TimeoutError, match="is queued after"):
        client.wait(job, timeout_s=0.05)
    threading.Timer(0.1, service.move, (job.job_id, JobState.FAILED)).start()
    assert client.wait(job, timeout_s=30).state == "failed"


def test_events_go_on_until_the_one_that_says_the_end(
    client: Client, service: MemoryService
) -> None:
    job = client.submit(count=1)
    found = client.events(job)
    assert next(found).id == 1
    service.become(job.job_id, JobState.COMPLETED)  # its server writes the event a moment later
    threading.Timer(0.3, service.move, (job.job_id, JobState.COMPLETED)).start()
    assert [event.id for event in found] == [2]


def test_images_stream_while_the_job_still_runs(
    client: Client, service: MemoryService, local: ObjectStore
) -> None:
    made = workload("job", encoding="raw")
    service.submit(JobSpec(count=20, job_id="job"), by="x")
    write_job(local, made, shards=[2], finish=False)
    found: dict[int, Any] = {}
    stream = client.images("job", batch=4)
    first = next(stream)
    assert first.index.tolist() == [12, 13, 14, 15]
    assert first.image_ids[0] == "job-0000000012"
    for shard in (0, 3, 1):
        write_shard(local, made, shard)
    service.move("job", JobState.COMPLETED)
    for batch in (first, *stream):
        assert batch.images.dtype == np.uint8
        assert batch.images.shape == (len(batch), 8, 8, 3)
        assert len(batch) <= 4
        for index, image in zip(batch.index.tolist(), batch.images, strict=True):
            assert index not in found
            found[index] = image
        assert batch.class_id.tolist() == [
            made.classes_of(i, i + 1)[0] for i in batch.index.tolist()
        ]
    assert sorted(found) == list(range(20))
    assert (np.stack([found[i] for i in range(20)]) == pixels(made, 0, 20)).all()


def test_images_without_follow_are_those_there_are(
    client: Client, service: MemoryService, local: ObjectStore
) -> None:
    service.submit(JobSpec(count=20, job_id="job"), by="x")
    write_job(local, workload("job", encoding="raw"), shards=[1], finish=False)
    assert [len(batch) for batch in client.images("job", follow=False)] == [6]


def test_the_async_client_has_the_same_verbs(
    local: ObjectStore, service: MemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    verbs = {name for name in vars(Client) if not name.startswith("_")}
    assert verbs == {name for name in vars(AsyncClient) if not name.startswith("_")}
    write_job(local, workload("job-000000", encoding="raw"), finish=False)

    async def main(url: str) -> None:
        async with AsyncClient(server=url, poll_s=0.01) as client:
            job = await client.submit(count=20)
            assert (await client.status(job)).state == "queued"
            service.move(job.job_id, JobState.COMPLETED)
            assert (await client.wait(job)).state == "completed"
            assert [event.id async for event in client.events(job)] == [1, 2]
            assert sum([len(batch) async for batch in client.images(job)]) == 20
            assert [line.job_id async for line in client.jobs()] == [job.job_id]

    with served(local, service, monkeypatch) as url:
        asyncio.run(main(url))


def test_where_to_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UN0_SERVER", raising=False)
    with pytest.raises(UserError, match="UN0_SERVER"):
        Client()
    with pytest.raises(UserError, match="give one of them"):
        Client(server="http://here", store="./x")
    for server in ("here:8000", "ftp://here", "http://", "http://user:secret@here"):
        with pytest.raises(UserError) as refused:
            Client(server=server)
        assert "secret" not in str(refused.value)
    with pytest.raises(UserError, match="copy it whole"):
        Client(server="http://here", token="un0_\n")


# -- answers of a server, without one -------------------------------------------------------------


class Answers(httpx2.BaseTransport):
    """Gives these answers in turn, the last one for ever. requests: what was asked."""

    def __init__(self, *answers: httpx2.Response | Exception) -> None:
        self._answers = list(answers)
        self.requests: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def problem(status: int, code: str, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, json={"code": code, "detail": f"it is {code}"}, headers=headers)


def view() -> httpx2.Response:
    return httpx2.Response(
        201, content=MemoryService().submit(JobSpec(count=1), by="x").model_dump_json()
    )


@pytest.fixture
def no_waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waits: list[float] = []
    monkeypatch.setattr("tenacity.nap.time.sleep", waits.append)
    return waits


@pytest.mark.parametrize(
    "first",
    [
        httpx2.ConnectError("refused"),
        httpx2.ReadError("reset"),
        httpx2.RemoteProtocolError("closed"),
        httpx2.ReadTimeout("late"),
        problem(429, "rate_limited"),
        problem(503, "store_unavailable"),
        problem(409, "key_in_flight"),
        httpx2.Response(502, content=b"<html>bad gateway"),
    ],
    ids=repr,
)
@pytest.mark.usefixtures("no_waits")
def test_a_submit_is_repeated_with_the_same_key(first: httpx2.Response | Exception) -> None:
    answers = Answers(first, first, view())
    made = HttpService("http://here", "un0_x", transport=answers).submit(JobSpec(count=1), by="x")
    assert made.job_id == "job-000000"
    keys = {request.headers["idempotency-key"] for request in answers.requests}
    assert (len(keys), len(answers.requests)) == (1, 3)
    assert answers.requests[0].headers["authorization"] == "Bearer un0_x"


def test_retry_after_is_what_is_waited(no_waits: list[float]) -> None:
    again = problem(503, "store_unavailable", **{"Retry-After": "7"})
    service = HttpService("http://here", transport=Answers(again, again, view()))
    service.submit(JobSpec(count=1), by="x")
    assert no_waits == [7.0, 7.0]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (problem(404, "no_such_job"), NoSuchJob),
        (problem(409, "conflict"), Conflict),
        (problem(422, "key_reused"), KeyReused),
        (problem(429, "over_limit"), OverLimit),
        (problem(401, "unauthenticated"), UserError),
        (problem(403, "forbidden"), UserError),
        (problem(500, "internal"), Fatal),
        (httpx2.Response(404, content=b"<html>nginx"), UserError),
        (httpx2.Response(200, content=b"<html>login"), Fatal),
        (httpx2.Response(200, content=b'{"job_id": 1}'), Fatal),
    ],
    ids=repr,
)
def test_an_answer_that_is_final_is_raised_at_once(answer: httpx2.Response, kind: type) -> None:
    answers = Answers(answer)
    with pytest.raises(kind):
        HttpService("http://here", transport=answers).status("job")
    assert len(answers.requests) == 1


@pytest.mark.usefixtures("no_waits")
def test_a_server_that_stays_away_is_said_to_be_away() -> None:
    service = HttpService(
        "http://here", transport=Answers(httpx2.ConnectError("refused")), patience_s=0.05
    )
    with pytest.raises(Retryable, match=r"http://here does not answer: refused; check UN0_SERVER"):
        service.status("job")
    with pytest.raises(Retryable):
        list(service.follow("job"))


def test_an_id_cannot_leave_its_place() -> None:
    answers = Answers(problem(404, "not_found"))
    with pytest.raises(Exception, match="not_found"):
        HttpService("http://here", transport=answers).status("../tokens?x=#y")
    assert answers.requests[0].url.raw_path == b"/v1/jobs/..%2Ftokens%3Fx%3D%23y"
