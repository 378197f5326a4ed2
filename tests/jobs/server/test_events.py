"""The stream of a job's events: each once and in order, whatever happens to the connection."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from cluster.errors import Retryable
from cluster.states import JobState
from cluster.storage.object_store import ObjectStore
from jobs.server.routes.events import _frames
from jobs.service.remote import HttpService
from jobs.service.views import Counts, EventView, Progress
from jobs.spec import JobSpec
from tests.support.httpapp import QUICK, World, served, world
from tests.support.memory_service import MemoryService

Frame = tuple[str, str | None, Any]


@pytest.fixture
def api(local: ObjectStore) -> Iterator[World]:
    with world(local) as made:
        made.service.submit(JobSpec(count=20, job_id="job", owner="ada"), by="ada")
        yield made


def frames(text: str) -> list[Frame]:
    """(event, id, data) of each frame."""
    found = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line[0] != ":")
        if lines:
            found.append((lines["event"], lines.get("id"), json.loads(lines["data"])))
    return found


def listen(api: World, **headers: str) -> list[Frame]:
    answer = api.client.get("/v1/jobs/job/events", headers=api.headers() | headers)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["x-accel-buffering"] == "no"
    return frames(answer.text)


def test_a_stream_has_every_event_progress_and_an_end(api: World) -> None:
    api.service.move("job", JobState.RUNNING)
    done = Counts(total=20, committed=20, in_flight=0, failed=0)
    api.service.move("job", JobState.COMPLETED, counts=done)
    found = listen(api)
    assert [(kind, number) for kind, number, _ in found] == [
        ("history", "1"),
        ("history", "2"),
        ("history", "3"),
        ("progress", None),
        ("end", None),
    ]
    assert [data["state"] for _, _, data in found] == ["queued", "running"] + ["completed"] * 3
    assert found[-1][2]["counts"]["committed"] == 20


@pytest.mark.parametrize("last", range(4))
def test_a_client_that_comes_back_gets_what_it_lacks(api: World, last: int) -> None:
    api.service.move("job", JobState.RUNNING)
    api.service.move("job", JobState.CANCELLED)
    found = listen(api, **{"Last-Event-ID": str(last)})
    assert [n for kind, n, _ in found if kind == "history"] == [str(n) for n in range(last + 1, 4)]


def test_without_follow_a_stream_ends_though_the_job_has_not(api: World) -> None:
    answer = api.client.get("/v1/jobs/job/events?follow=false", headers=api.headers())
    assert [kind for kind, _, _ in frames(answer.text)] == ["history", "progress", "end"]


def test_too_many_watchers_are_told_to_poll(local: ObjectStore) -> None:
    with world(local, options=replace(QUICK, watchers=0)) as api:
        api.service.submit(JobSpec(count=20, job_id="job", owner="ada"), by="ada")
        answer = api.client.get("/v1/jobs/job/events", headers=api.headers())
        assert (answer.status_code, answer.json()["code"]) == (503, "too_many_watchers")
        assert api.app.state.context.watching == 0


def test_a_place_is_free_again_after_a_stream(api: World) -> None:
    api.service.move("job", JobState.CANCELLED)
    for _ in range(3):
        listen(api)
    assert api.app.state.context.watching == 0


def test_a_store_that_goes_away_ends_a_stream_and_the_client_comes_back(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.service.remote._RETRY_S", 0.0)
    service = MemoryService()
    service.submit(JobSpec(count=20, job_id="job"), by="ada")
    read, failures = service.events, [Retryable("away")] * 3

    def events(job_id: str, after: int = 0) -> list[EventView]:
        if failures:
            raise failures.pop()
        return read(job_id, after)

    monkeypatch.setattr(service, "events", events)
    service.move("job", JobState.COMPLETED)
    with served(local, service, monkeypatch) as url:
        found = list(HttpService(url).follow("job"))
    assert [each.id for each in found if isinstance(each, EventView)] == [1, 2]
    assert failures == []


class Cutting(httpx2.HTTPTransport):
    """Breaks every stream of events after so many bytes."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after, self.cuts = after, 0

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = super().handle_request(request)
        if not request.url.path.endswith("/events"):
            return answer
        return httpx2.Response(
            answer.status_code, headers=answer.headers, stream=_Cut(self, answer)
        )

    def cut(self) -> None:
        self.cuts += 1
        raise httpx2.ReadError("cut")


class _Cut(httpx2.SyncByteStream):
    def __init__(self, transport: Cutting, answer: httpx2.Response) -> None:
        self._transport, self._answer = transport, answer

    def __iter__(self) -> Iterator[bytes]:
        left = self._transport._after
        for data in self._answer.iter_raw():
            yield data[:left]
            left -= len(data)
            if left <= 0:
                self._transport.cut()

    def close(self) -> None:
        self._answer.close()


def test_a_followed_stream_has_no_gap_and_no_double_over_cut_connections(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobs.service.remote._RETRY_S", 0.0)
    service, events = MemoryService(), 80
    service.submit(JobSpec(count=20, job_id="job"), by="ada")
    with served(local, service, monkeypatch) as url:
        transport = Cutting(after=1500)
        client = HttpService(url, transport=transport)
        found: list[EventView | Progress] = []
        watching = threading.Thread(target=lambda: found.extend(client.follow("job")))
        watching.start()
        for number in range(2, events):
            service.move("job", JobState.RUNNING, f"event {number}")
        service.move("job", JobState.COMPLETED)
        watching.join(60)
        assert not watching.is_alive()
    ids = [each.id for each in found if isinstance(each, EventView)]
    assert ids == list(range(1, events + 1))
    assert transport.cuts > 5
    assert isinstance(found[-1], Progress)


def test_five_hundred_watchers_cost_as_many_reads_as_one(local: ObjectStore) -> None:
    options = replace(QUICK, status_s=0.5, poll_s=0.05)
    with world(local, options=options) as api:
        api.service.submit(JobSpec(count=20, job_id="job", owner="ada"), by="ada")
        context = api.app.state.context

        async def watch(number: int) -> int:
            seen = 0
            async for frame in _frames(context, "job", 0, follow=True):
                if frame.startswith(b"event: history"):
                    seen += 1
                    if (number, seen) == (0, 1):
                        api.service.move("job", JobState.COMPLETED)
            return seen

        async def main() -> list[int]:
            return await asyncio.gather(*map(watch, range(500)))

        assert asyncio.run(main()) == [2] * 500
        assert context.histories.reads < 50
        assert context.statuses.reads < 50
