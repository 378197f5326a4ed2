"""A server's loop over a store in memory and a made-up fleet: what users see of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest

from cluster.actors import job_run
from cluster.actors.options import ModelWork, RunRequest
from cluster.errors import Retryable, UserError
from cluster.scheduler.request import JobRequest
from cluster.states import JobState
from cluster.storage.commit import ended_state
from cluster.storage.epoch import holder_of, newest
from cluster.storage.history import read_events
from cluster.storage.intents import Wanted, want
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectInfo
from cluster.storage.servers import SILENCE_S, RunStatus, newest_run, read_beats
from cluster.types import JobRecord, SubmittedSpec
from jobs.server.decide import ABANDON_S
from jobs.server.supervisor import Identity, Supervisor
from tests.support import jobfactory
from tests.support.memory_store import MemoryStore
from tests.support.service_fleet import FakeFleet, Habits

START = datetime(2026, 1, 1, tzinfo=UTC)


class CountingStore(MemoryStore):
    """away: every call fails."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.away = False

    def _called(self, verb: str) -> None:
        self.calls[verb] += 1
        if self.away:
            raise Retryable("no answer")

    def get(self, key: str) -> bytes:
        self._called("get")
        return super().get(key)

    def put(self, key: str, data: Any) -> None:
        self._called("put")
        super().put(key, data)

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        self._called("list")
        return super().list(prefix, after=after)


class Place:
    """A store and servers of it; time goes on by ``seconds``."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.store = CountingStore()
        self.now_s = 0.0
        self.servers: dict[str, tuple[Supervisor, FakeFleet]] = {}
        self.refused = ""

        async def inline(function: Any, *args: Any) -> Any:
            return function(*args)

        patch.setattr(job_run.asyncio, "to_thread", inline)

    def monotonic_s(self) -> float:
        return self.now_s

    def utc(self) -> datetime:
        return START + timedelta(seconds=self.now_s)

    def request_of(self, record: JobRecord) -> RunRequest:
        if self.refused:
            raise UserError(self.refused)
        job = record.workload
        asked = JobRequest(job.job_id, job.model_rev, job.count, job.shard_images)
        return RunRequest(job, asked, ModelWork(1.0, 8, 8))

    def start(self, name: str, *, deaf: float = 0.0, doomed: Sequence[str] = ()) -> Supervisor:
        me = Identity(name, "host", 1)
        server = Supervisor(self.store, me, self.request_of, self, Random(1))
        fleet = FakeFleet(
            self.store, Random(2), Habits(deaf=deaf), lambda *_: None, frozenset(doomed)
        )
        server.fleet = fleet
        self.servers[name] = (server, fleet)
        return server

    def submit(self, job_id: str = "job", *, spec: bool = True, **fields: Any) -> None:
        record = JobRecord(
            workload=jobfactory.workload(job_id),
            spec=SubmittedSpec.model_validate(fields),
            owner="tester",
            submitted_at=self.utc(),
        )
        self.store.put(JobLayout(job_id).active, b"")
        self.want("run", job_id)
        if spec:
            self.store.put(JobLayout(job_id).spec, record.model_dump_json().encode())

    def want(self, wanted: Wanted, job_id: str = "job") -> None:
        want(self.store, job_id, wanted, self.utc(), by="tester")

    def seconds(self, count: int, *names: str) -> None:
        """Of these servers, or all."""
        for _ in range(count):
            self.now_s += 1.0
            for name in names or self.servers:
                server, fleet = self.servers[name]
                fleet.step()
                server.tick()

    def status(self, job_id: str = "job") -> RunStatus:
        found = newest_run(self.store, job_id)
        assert found is not None
        return found

    def end(self, job_id: str = "job") -> JobState | None:
        return ended_state(self.store, job_id)


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(monkeypatch)


def test_a_submitted_job_is_run_to_its_end_and_put_away(place: Place) -> None:
    place.start("a")
    place.submit()
    place.seconds(30)
    assert place.end() == "completed"
    assert list(place.store.list("service/active/")) == []
    last = place.status()
    assert (last.state, last.committed_images, last.server_id) == ("completed", 20, "a")
    states = [event.state for event in read_events(place.store, "job") if event.state]
    assert states == ["starting", "running", "completed"]


def test_jobs_of_commands_are_left_alone(place: Place) -> None:
    place.start("a")
    jobfactory.submit(place.store, jobfactory.workload("by-hand"))
    place.store.put(JobLayout("by-hand").active, b"")
    before = dict(place.store.objects)
    place.seconds(5)
    changed = {key for key in place.store.objects if before.get(key) != place.store.objects[key]}
    assert {key for key in changed if not key.startswith("service/servers/")} == set()


def test_a_half_made_job_is_run_once_it_is_whole(place: Place) -> None:
    place.start("a")
    place.submit(spec=False)
    place.seconds(5)
    assert newest(place.store, "job") == 0
    place.submit()
    place.seconds(120)
    assert place.end() == "completed"


@pytest.mark.parametrize(("wanted", "state"), [("pause", "paused"), ("cancel", "cancelled")])
def test_a_run_that_does_not_hear_is_dropped_in_time(
    wanted: Wanted, state: str, place: Place
) -> None:
    place.start("a", deaf=1.0)
    place.submit()
    place.seconds(4)
    assert place.status().state == "running"
    place.want(wanted)
    place.seconds(2)
    assert place.status().state == {"pause": "pausing", "cancel": "cancelling"}[wanted]
    place.seconds(int(ABANDON_S) + 2)
    assert place.status().state == state
    assert place.end() == ("cancelled" if wanted == "cancel" else None)


def test_a_deadline_ends_a_job_that_was_submitted_so_and_no_other(place: Place) -> None:
    place.start("a", doomed=["late", "patient"])
    place.submit("late", deadline=3.0, on_deadline="stop")
    place.submit("patient", deadline=3.0)
    place.seconds(4)
    assert (place.end("late"), place.end("patient")) == ("expired", None)


def test_a_run_that_fails_again_and_again_ends_the_job_with_the_reason(place: Place) -> None:
    place.start("a", doomed=["job"])
    place.submit()
    place.seconds(200)
    assert place.end() == "failed"
    assert place.status().reason == "a replica says why"
    assert newest(place.store, "job") == 3


def test_a_model_that_has_changed_pauses_the_job_until_somebody_resumes_it(place: Place) -> None:
    place.refused = "model 'm.pt' has revision 2; give the same file"
    place.start("a")
    place.submit()
    place.seconds(5)
    status = place.status()
    assert (status.state, status.reason_code) == ("paused", "model_changed")
    assert status.reason == place.refused
    place.refused = ""
    place.seconds(5)
    assert place.status().state == "paused"
    place.want("pause")
    place.want("run")
    place.seconds(40)
    assert place.end() == "completed"


def test_a_store_that_is_away_is_tried_more_and_more_rarely_and_then_all_goes_on(
    place: Place,
) -> None:
    place.start("a")
    place.submit()
    place.seconds(2)
    place.store.away = True
    place.store.calls.clear()
    server, _ = place.servers["a"]
    for _ in range(600):
        place.now_s += 1.0
        server.tick()
    assert 10 < place.store.calls.total() < 100
    place.store.away = False
    place.seconds(120)
    assert place.end() == "completed"


def test_a_ray_that_is_lost_and_found_gets_a_new_run(place: Place) -> None:
    server = place.start("a", doomed=())
    place.submit()
    place.seconds(3)
    place.servers["a"][1].reachable = False
    place.seconds(3)
    assert server.fleet is None
    assert (place.status().state, place.status().reason_code) == ("queued", "ray_lost")
    server.fleet = FakeFleet(place.store, Random(3), Habits(), lambda *_: None)
    place.servers["a"] = (server, server.fleet)
    place.seconds(30)
    assert place.end() == "completed"
    assert newest(place.store, "job") == 2


def test_the_jobs_of_a_silent_server_are_taken_over_and_those_of_another_are_not(
    place: Place,
) -> None:
    for name in ("a", "b"):
        place.start(name, doomed=())
    place.submit()
    place.seconds(1, "a")
    place.seconds(int(SILENCE_S) - 1, "b")
    assert holder_of(place.store, "job", newest(place.store, "job")) == "a"
    place.seconds(3, "b")
    assert holder_of(place.store, "job", newest(place.store, "job")) == "b"


def test_who_signs_off_is_not_waited_for(place: Place) -> None:
    server = place.start("a")
    place.submit()
    place.seconds(3)
    assert not server.stop_all(10.0)
    place.servers["a"][1].step()
    assert server.stop_all(10.0)
    server.sign_off()
    assert read_beats(place.store) == {}
    assert place.status().state == "queued"
    place.start("b")
    place.seconds(2, "b")
    assert holder_of(place.store, "job", newest(place.store, "job")) == "b"


def test_a_tick_costs_so_many_calls_however_many_jobs_there_are(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.start("a")
    place.servers["a"][0].fleet = None  # all of them wait
    monkeypatch.setattr("jobs.server.supervisor.LOOKS", 20)
    for number in range(200):
        place.submit(f"job-{number:05d}")
    place.store.calls.clear()
    place.servers["a"][0].tick()
    assert place.store.calls.total() < 12 * 20
    assert len(place.servers["a"][0]._jobs) == 20
    for _ in range(12):
        place.servers["a"][0].tick()
    assert len(place.servers["a"][0]._jobs) == 200, "all in turn"


def test_a_job_that_nobody_can_handle_does_not_keep_a_server_from_the_others(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    place.start("a")
    handle = place.request_of

    def request_of(record: JobRecord) -> RunRequest:
        if record.workload.job_id == "a-strange-one":
            raise ZeroDivisionError
        return handle(record)

    place.servers["a"][0]._hands._request_of = request_of
    place.submit("a-strange-one")
    place.submit()
    place.seconds(40)
    assert place.end() == "completed"
    assert place.end("a-strange-one") is None
    assert "a-strange-one is left for now" in caplog.text
