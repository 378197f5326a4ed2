"""The service's jobs on a coordinator: a claim is checked, taken over, and cannot be used late."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.jobs import Jobs
from cluster.actors.knowledge import Knowledge
from cluster.actors.options import FleetOptions, ModelWork, RunRequest
from cluster.actors.slots import Slots
from cluster.actors.tasks import Tasks
from cluster.clock import utc_now
from cluster.errors import ClusterError, Retryable
from cluster.scheduler.commands import FinishJob
from cluster.scheduler.request import JobRequest
from cluster.states import JobState
from cluster.stopping import Grace
from cluster.storage.commit import ended_state, find_manifest
from cluster.storage.epoch import claim_next, holder_of
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.servers import RunStatus, put_run
from cluster.types import Energy
from tests.support import jobfactory

WORKLOAD = jobfactory.workload()
SPENT = Energy(energy_mj=700, quality="measured_counter", method="nvml")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path / "store"))


def claimed(store: ObjectStore, epoch: int, server: str = "me") -> int:
    assert claim_next(store, "job", epoch - 1, server) == epoch
    return epoch


def request(epoch: int) -> RunRequest:
    asked = JobRequest("job", WORKLOAD.model_rev, WORKLOAD.count, WORKLOAD.shard_images)
    return RunRequest(WORKLOAD, asked, ModelWork(1.0, 8, 8), epoch)


def coordinated(store: ObjectStore, test: Callable[[Jobs, JobBook], Awaitable[None]]) -> None:
    """Run the test with the jobs of a coordinator that has no replicas."""

    async def run() -> None:
        options, book, events = FleetOptions(store.config, "c", own=False), JobBook(), EventQueue()
        knowledge = Knowledge(store, options, "run")
        slots = Slots(options, "run", book, knowledge, events)
        await test(Jobs(store, book, slots, knowledge, events, tasks=Tasks(), own=False), book)

    asyncio.run(run())


def test_a_claim_that_another_server_has_passed_begins_nothing(store: ObjectStore) -> None:
    late = JobRun(WORKLOAD, store, claimed(store, 1))
    claimed(store, 2, "other")
    with pytest.raises(ClusterError, match="another server has claimed"):
        late.open()


def test_a_job_that_has_ended_is_not_begun_and_stays_as_it_is(store: ObjectStore) -> None:
    finalise(store, "job", JobState.CANCELLED)
    job = JobRun(WORKLOAD, store, claimed(store, 1))
    with pytest.raises(ClusterError, match="has ended"):
        job.open()
    assert ended_state(store, "job") == "cancelled"


def test_what_ends_as_cancelled_while_its_last_shard_is_made_stays_cancelled(
    store: ObjectStore,
) -> None:
    job = JobRun(WORKLOAD, store, claimed(store, 1))
    job.open()
    for index in range(WORKLOAD.num_shards):
        jobfactory.write_shard(store, WORKLOAD, index)
    finalise(store, "job", JobState.CANCELLED)
    asyncio.run(job.end(FinishJob("job", JobState.COMPLETED, "")))
    assert job.snapshot().state == "cancelled"
    assert ended_state(store, "job") == "cancelled"


def test_a_run_that_was_taken_over_elsewhere_ends_nothing(store: ObjectStore) -> None:
    job = JobRun(WORKLOAD, store, claimed(store, 1))
    job.open()
    for index in range(WORKLOAD.num_shards):
        jobfactory.write_shard(store, WORKLOAD, index)
    claimed(store, 2, "other")
    asyncio.run(job.end(FinishJob("job", JobState.COMPLETED, "")))
    assert job.snapshot().state == "failed"
    assert find_manifest(store, "job") is None


def test_a_failure_is_the_servers_to_record(store: ObjectStore) -> None:
    job = JobRun(WORKLOAD, store, claimed(store, 1))
    job.open()
    asyncio.run(job.end(FinishJob("job", JobState.FAILED, "why")))
    assert (job.snapshot().state, job.snapshot().reason) == ("failed", "why")
    assert ended_state(store, "job") is None


def test_overhead_of_earlier_runs_is_the_jobs(store: ObjectStore) -> None:
    claimed(store, 1)
    status = RunStatus(
        job_id="job", epoch=1, server_id="me", intent=1, state=JobState.PAUSED, at=utc_now(),
        overhead=SPENT,
    )  # fmt: skip
    put_run(store, status)
    job = JobRun(WORKLOAD, store, claimed(store, 2))
    job.open()
    for index in range(WORKLOAD.num_shards):
        jobfactory.write_shard(store, WORKLOAD, index)
    asyncio.run(job.end(FinishJob("job", JobState.COMPLETED, "")))
    manifest = find_manifest(store, "job")
    assert manifest is not None
    assert manifest.overhead.energy_mj == 700


def test_a_newer_claim_goes_on_with_the_run_and_an_older_one_cannot_stop_it(
    store: ObjectStore,
) -> None:
    async def test(jobs: Jobs, book: JobBook) -> None:
        assert jobs.begin(request(claimed(store, 1)))
        run = book["job"]
        assert jobs.begin(request(1)), "again, as after a lost reply"
        assert jobs.begin(request(2))
        assert book["job"] is run
        assert run.epoch == 2
        assert not jobs.begin(request(1))
        jobs.stop("job", Grace.of(10), epoch=1)
        assert not run.stopping
        jobs.stop("job", Grace.of(10), epoch=2)
        assert run.stopping
        assert not jobs.begin(request(3)), "its run is still ending"

    coordinated(store, test)


def test_a_run_that_is_over_is_shown_until_its_server_has_seen_it(store: ObjectStore) -> None:
    async def test(jobs: Jobs, book: JobBook) -> None:
        jobs.begin(request(claimed(store, 1)))
        await jobs.end(book["job"], FinishJob("job", JobState.STOPPED, ""))
        assert jobs.begin(request(1)), "it has begun, and is over"
        assert not book
        assert {name: s.state for name, s in jobs.snapshots().items()} == {"job": "stopped"}
        assert jobs.snapshots()["job"].is_over
        assert jobs.begin(request(claimed(store, 2)))
        jobs.forget("job", 1)
        assert jobs.snapshots()["job"].epoch == 2
        jobs.forget("job", 2)
        assert jobs.snapshots(), "it goes on"

    coordinated(store, test)


@pytest.mark.parametrize("length", [0, 5, 12, 32, 36])
def test_a_claim_that_is_read_in_part_names_nobody(length: int, store: ObjectStore) -> None:

    claimed(store, 1, "server-12")
    assert holder_of(store, "job", 1) == "server-12"
    key = JobLayout("job").epoch(1)
    store.put(key, store.get(key)[:length])
    with pytest.raises(Retryable, match="no whole claim"):
        holder_of(store, "job", 1)
