"""The job service over a store, as its callers see it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from cluster.errors import UserError
from cluster.states import JobState
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.summaries import job_ids
from jobs.service.api import Conflict, KeyReused, NoSuchJob
from jobs.service.core import StoreService
from jobs.service.foreground import resume
from jobs.service.listing import active_ids
from jobs.service.views import JobFilter
from jobs.spec import JobSpec
from tests.support import jobfactory
from tests.support.counting_store import CountingStore
from tests.support.fake_server import Clock, FakeServer, without_models


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    without_models(monkeypatch)


@pytest.fixture
def service(local: ObjectStore) -> StoreService:
    return StoreService(local, now_s=Clock(1.0))


def spec(**changes: object) -> JobSpec:
    return JobSpec.model_validate({"count": 40, "shard_images": 10, **changes})


def server(store: ObjectStore, name: str = "s1") -> FakeServer:
    one = FakeServer(store, name)
    one.beat()
    return one


def until(one: FakeServer, service: StoreService, job_id: str, state: JobState) -> None:
    for _ in range(20):
        if service.status(job_id).state == state:
            return
        one.beat()
        one.step(job_id)
    pytest.fail(f"it never was {state}")


def test_a_job_goes_from_submitted_to_completed(service: StoreService, local: ObjectStore) -> None:
    job = service.submit(spec(owner="ann", labels={"team": "vision"}), by="ann")
    assert (job.state, job.queue_position, job.counts.total) == (JobState.QUEUED, 1, 40)
    assert job.reason is not None
    assert job.reason.code == "waiting_for_server"
    assert f"un0 serve --store {local.config.uri}" in job.reason.message
    assert job.quote is not None
    assert job.quote.energy_j is None
    assert "un0 calibrate" in job.quote.notes[0]
    one = server(local)
    until(one, service, job.job_id, JobState.RUNNING)
    one.step(job.job_id)
    running = service.status(job.job_id)
    assert (running.counts.committed, running.results.committed_shards) == (20, 2)
    assert running.server_id == "s1"
    assert running.energy.energy_j == 6.0
    assert len(list(service.uris(job.job_id))) == 2
    until(one, service, job.job_id, JobState.COMPLETED)
    done = service.status(job.job_id)
    assert done.results.complete
    assert done.finished_at is not None
    assert done.started_at is not None
    assert service.events(job.job_id)[0].kind == "submitted"
    one.step(job.job_id)
    assert active_ids(local) == []


def test_status_of_a_running_job_lists_no_commit(service: StoreService, local: ObjectStore) -> None:
    job_id = service.submit(spec(count=150), by="ann").job_id
    one = server(local)
    until(one, service, job_id, JobState.RUNNING)
    for _ in range(9):
        one.step(job_id)
    counting = CountingStore(local)
    shown = StoreService(counting).status(job_id)
    assert shown.counts.committed == 100
    assert shown.results.committed_shards == 10
    assert not [key for key in counting.listed if "/commits/" in key]
    assert counting.calls["get"] <= 8


def test_one_key_is_one_job(service: StoreService, local: ObjectStore) -> None:
    first = service.submit(spec(), by="ann", idempotency_key="k")
    assert service.submit(spec(), by="ann", idempotency_key="k").job_id == first.job_id
    assert service.submit(spec(), by="bob", idempotency_key="k").job_id != first.job_id
    assert service.submit(spec(), by="ann").job_id != first.job_id
    with pytest.raises(KeyReused, match=first.job_id):
        service.submit(spec(count=41), by="ann", idempotency_key="k")
    for key in ("", "x" * 256, "a\nb"):
        with pytest.raises(UserError, match="idempotency key"):
            service.submit(spec(), by="ann", idempotency_key=key)
    assert len(job_ids(local)) == 3
    assert len(service.events(first.job_id)) == 1


def test_twenty_at_once_with_one_key_make_one_job(local: ObjectStore) -> None:
    _twenty_at_once(local)


@pytest.mark.slow
def test_over_s3_it_is_as_in_a_directory(s3_store: ObjectStore) -> None:
    _twenty_at_once(s3_store)
    service = StoreService(s3_store, now_s=Clock(1.0))
    job_id = service.submit(spec(), by="ann").job_id
    one = server(s3_store)
    until(one, service, job_id, JobState.RUNNING)
    service.pause(job_id, by="ann")
    until(one, service, job_id, JobState.PAUSED)
    service.resume(job_id, by="ann")
    until(one, service, job_id, JobState.COMPLETED)
    assert len(list(service.uris(job_id))) == 4
    assert all(uri.startswith(f"{s3_store.config.uri}/jobs/") for uri in service.uris(job_id))
    found = service.jobs(JobFilter(state=JobState.COMPLETED))
    assert [line.job_id for line in found.jobs] == [job_id]


def _twenty_at_once(local: ObjectStore) -> None:
    start = threading.Barrier(20)

    def one(_: int) -> str:
        service = StoreService(local)
        start.wait()
        return service.submit(spec(), by="ann", idempotency_key="k").job_id

    with ThreadPoolExecutor(20) as pool:
        made = set(pool.map(one, range(20)))
    assert len(made) == 1
    assert [i for i in job_ids(local) if local.get(JobLayout(i).spec)] == list(made)
    assert len(StoreService(local).events(made.pop())) == 1


def test_a_half_made_job_is_finished_by_the_repetition(
    service: StoreService, local: ObjectStore
) -> None:
    job = service.submit(spec(), by="ann", idempotency_key="k")
    before = local.get(JobLayout(job.job_id).spec)
    for key in (JobLayout(job.job_id).spec, JobLayout(job.job_id).quote):
        local.delete(key)
    with pytest.raises(NoSuchJob):
        service.status(job.job_id)
    assert service.submit(spec(), by="ann", idempotency_key="k").job_id == job.job_id
    assert local.get(JobLayout(job.job_id).spec) == before
    assert len(service.events(job.job_id)) == 1


def test_an_id_belongs_to_its_first_job(service: StoreService, local: ObjectStore) -> None:
    service.submit(spec(job_id="mine"), by="ann", idempotency_key="k")
    assert service.submit(spec(job_id="mine"), by="ann", idempotency_key="k").job_id == "mine"
    for key in (None, "another"):
        with pytest.raises(UserError, match="already in"):
            service.submit(spec(job_id="mine"), by="ann", idempotency_key=key)
    local.delete(JobLayout("mine").spec)
    jobfactory.submit(local, jobfactory.workload("mine"))  # before the repetition comes
    with pytest.raises(UserError, match="already in"):
        service.submit(spec(job_id="mine"), by="ann", idempotency_key="k")


def test_what_was_submitted_is_not_run_in_the_foreground(
    service: StoreService, local: ObjectStore
) -> None:
    job_id = service.submit(spec(), by="ann").job_id
    with pytest.raises(UserError, match="was submitted"):
        resume(job_id, local.config.uri)


def test_pause_and_resume_are_repeatable(service: StoreService, local: ObjectStore) -> None:
    job_id = service.submit(spec(), by="ann").job_id
    one = server(local)
    until(one, service, job_id, JobState.RUNNING)
    paused = service.pause(job_id, by="ann", reason="lunch")
    assert paused.state == JobState.PAUSING
    assert service.pause(job_id, by="ann").last_event == paused.last_event
    until(one, service, job_id, JobState.PAUSED)
    shown = service.status(job_id)
    assert shown.reason is not None
    assert (shown.reason.code, shown.reason.message) == ("user_request", "paused by ann: lunch")
    assert service.resume(job_id, by="ann").state == JobState.QUEUED
    assert service.resume(job_id, by="ann").last_event == shown.last_event + 1
    until(one, service, job_id, JobState.COMPLETED)
    for verb in (service.pause, service.resume, service.cancel):
        with pytest.raises(Conflict, match="is completed, and stays so"):
            verb(job_id, by="ann")


def test_a_job_that_paused_by_itself_is_resumed_once(
    service: StoreService, local: ObjectStore
) -> None:
    job_id = service.submit(spec(), by="ann").job_id
    one = server(local)
    until(one, service, job_id, JobState.RUNNING)
    one.step(job_id, over_budget=True)
    shown = service.status(job_id)
    assert shown.state == JobState.PAUSED
    assert shown.reason is not None
    assert shown.reason.code == "energy_budget"
    one.sign_off()
    assert service.status(job_id).state == JobState.PAUSED
    one.beat()
    resumed = service.resume(job_id, by="ann")
    assert resumed.state == JobState.QUEUED
    assert service.resume(job_id, by="ann").last_event == resumed.last_event
    until(one, service, job_id, JobState.COMPLETED)


def test_what_is_cancelled_keeps_its_images(service: StoreService, local: ObjectStore) -> None:
    job_id = service.submit(spec(), by="ann").job_id
    one = server(local)
    until(one, service, job_id, JobState.RUNNING)
    assert service.cancel(job_id, by="ann", reason="typo").state == JobState.CANCELLING
    for verb in (service.pause, service.resume):
        with pytest.raises(Conflict, match="cancelled"):
            verb(job_id, by="ann")
    until(one, service, job_id, JobState.CANCELLED)
    shown = service.cancel(job_id, by="bob")
    assert shown.reason is not None
    assert shown.reason.message == "cancelled by ann: typo"
    assert shown.results.committed_images == 10
    assert not shown.results.complete
    assert len(list(service.uris(job_id))) == 1


def test_a_job_that_no_server_has_is_cancelled_at_once(
    service: StoreService, local: ObjectStore
) -> None:
    job_id = service.submit(spec(), by="ann").job_id
    assert service.cancel(job_id, by="ann").state == JobState.CANCELLED
    assert active_ids(local) == []
    one = server(local)
    one.step(job_id)
    assert service.status(job_id).state == JobState.CANCELLED


def test_a_lost_server_is_told_of(service: StoreService, local: ObjectStore) -> None:
    job_id = service.submit(spec(), by="ann").job_id
    one = server(local)
    until(one, service, job_id, JobState.RUNNING)
    one.sign_off()
    alone = service.status(job_id)
    assert alone.reason is not None
    assert (alone.state, alone.reason.code) == (JobState.QUEUED, "waiting_for_server")
    assert alone.counts.committed == 10
    server(local, "s2")
    shown = service.status(job_id)
    assert shown.reason is not None
    assert (shown.state, shown.reason.code) == (JobState.QUEUED, "server_lost")


def test_the_queue_is_by_priority_and_age(local: ObjectStore) -> None:
    clock = Clock(0.0)
    service = StoreService(local, now_s=clock)
    server(local)
    ids = [service.submit(spec(priority=p), by="ann").job_id for p in (0, 0, 5)]
    clock.now_s += 3
    assert [service.status(i).queue_position for i in ids] == [2, 3, 1]
    shown = service.status(ids[1])
    assert shown.reason is not None
    assert shown.reason.message == "2 jobs go before it"
    service.pause(ids[2], by="ann")
    clock.now_s += 3
    assert [service.status(i).queue_position for i in ids] == [1, 2, None]


def test_what_a_command_runs_is_not_the_services(service: StoreService, local: ObjectStore) -> None:
    jobfactory.write_job(local, jobfactory.workload("mine"), shards=[0], finish=False)
    assert service.status("mine").state == JobState.INCOMPLETE
    for verb in (service.pause, service.cancel, service.resume):
        with pytest.raises(Conflict, match="un0 resume mine"):
            verb("mine", by="ann")
    assert active_ids(local) == []


@pytest.mark.parametrize("job_id", ["nope", "../x", "a/b", "", "x" * 200, "a\0b"])
def test_ids_that_are_no_jobs_are_said_to_be_none(service: StoreService, job_id: str) -> None:
    service.submit(spec(), by="ann")
    for ask in (service.status, service.results, service.events, service.uris):
        with pytest.raises(NoSuchJob):
            ask(job_id)
    with pytest.raises(NoSuchJob):
        service.cancel(job_id, by="ann")


def test_jobs_are_filtered(service: StoreService, local: ObjectStore) -> None:
    ids = [
        service.submit(spec(owner=owner, labels={"n": str(n)}), by="x").job_id
        for n, owner in enumerate(["ann", "bob", "ann", "ann"])
    ]
    service.pause(ids[3], by="ann")
    jobfactory.write_job(local, jobfactory.workload("done"))

    def found(**wanted: object) -> set[str]:
        page = service.jobs(JobFilter.model_validate(wanted))
        assert page.left is None or not wanted
        return {line.job_id for line in page.jobs}

    assert found() == {*ids, "done"}
    assert found(owner="ann") == {ids[0], ids[2], ids[3]}
    assert found(owner="ann", state="queued") == {ids[0], ids[2]}
    assert found(state="paused") == {ids[3]}
    assert found(state="completed") == {"done"}
    assert found(label={"n": "1"}) == {ids[1]}
    assert found(since=service.status(ids[0]).created_at) == set(ids)
