"""What a run claims at its end is what is in the store then."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.knowledge import Knowledge
from cluster.actors.options import FleetOptions, ReplicaOptions
from cluster.actors.outcomes import Progress, done_of
from cluster.actors.slot import SlotHandle, SlotSpec
from cluster.actors.slots import Slots
from cluster.progress import Snapshot
from cluster.scheduler.commands import FinishJob
from cluster.stage_times import StageTimes
from cluster.states import JobState, ReplicaState
from cluster.storage.commit import find_manifest
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import Energy, Workload
from tests.support import jobfactory

WORKLOAD = jobfactory.workload()
SLOT = SlotHandle(SlotSpec("r", "node", "host", "cpu", ReplicaOptions("cpu", 1)))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(place: Path) -> ObjectStore:
    return open_store(str(place))


def committed_run(store: ObjectStore, workload: Workload = WORKLOAD) -> JobRun:
    """A run that has just committed every shard."""
    job = JobRun(workload, store)
    job.open()
    job.joined(SLOT)
    for index in range(workload.num_shards):
        record = jobfactory.write_shard(store, workload, index)
        job.committed("r", done_of(1, record, "won"))
    return job


def end(job: JobRun, state: str = "completed") -> Snapshot:
    asyncio.run(job.end(FinishJob("job", JobState(state), "")))
    return job.snapshot()


def test_a_complete_job_claims_all_of_it(store: ObjectStore) -> None:
    job = committed_run(store)
    last = end(job)
    assert (last.state, last.committed_images) == ("completed", 20)


def test_how_busy_the_stages_are_is_known_while_the_job_runs_and_counted_once(
    store: ObjectStore,
) -> None:
    job = committed_run(store)
    assert job.snapshot().stages.shares is None
    job.under_way("r", Progress(5, "", StageTimes(10.0, 2.0, 9.0, 1.0)))
    job.under_way("s", Progress(5, "", StageTimes(10.0, 4.0, 9.0, 1.0)))
    assert job.snapshot().stages == StageTimes(20.0, 6.0, 18.0, 2.0)
    job.under_way("r", Progress(0, ""))  # it has nothing to do: what it was busy with still counts
    assert job.snapshot().stages.bottleneck == "encode"
    job.closed("r", StageTimes(12.0, 3.0, 9.0, 1.0))
    job.closed("s")  # lost, say
    last = end(job)
    assert last.stages == StageTimes(22.0, 7.0, 18.0, 2.0)
    assert last.open_images == 0
    job.under_way("r", Progress(0, "", StageTimes(12.0, 3.0, 9.0, 1.0)))  # a report that was late
    assert job.snapshot().stages == last.stages


@pytest.mark.parametrize("state", ["completed", "stopped", "failed"])
def test_of_a_store_that_is_gone_nothing_is_claimed(
    state: str, store: ObjectStore, place: Path
) -> None:
    job = committed_run(store)
    assert job.snapshot().committed_images == 20
    shutil.rmtree(place)
    last = end(job, state)
    assert last.committed_images == 0
    assert last.energy.energy_mj is None
    assert state == "stopped" or "is gone" in last.reason
    assert last.state == ("stopped" if state == "stopped" else "failed")
    assert not place.exists()


@pytest.mark.parametrize("state", ["completed", "stopped"])
def test_commits_that_were_removed_are_not_counted(state: str, store: ObjectStore) -> None:
    job = committed_run(store)
    store.delete(JobLayout("job").commit(1))
    last = end(job, state)
    assert last.committed_images == 14
    assert state == "stopped" or "commits of 3 of 4 shards" in last.reason


def test_an_emptied_store_is_not_taken_for_another_run(store: ObjectStore, place: Path) -> None:
    job = committed_run(store)
    shutil.rmtree(place / "jobs")
    last = end(job, "failed")
    assert last.committed_images == 0
    assert "are gone from" in last.reason


SPENT = Energy(energy_mj=700, quality="measured_counter", method="nvml")
LOADED = Energy(energy_mj=40, quality="measured_counter", method="nvml")


def test_overhead_of_a_run_that_failed_stays_the_jobs(store: ObjectStore) -> None:
    failed = committed_run(store)
    failed.started(SPENT)
    end(failed, "failed")
    resumed = JobRun(WORKLOAD, store)
    resumed.open()
    resumed.started(LOADED)
    resumed.joined(SLOT)
    last = end(resumed)
    assert last.state == "completed"
    assert last.overhead.energy_mj == 40, "a snapshot's is of its run"
    manifest = find_manifest(store, "job")
    assert manifest is not None
    assert manifest.overhead.energy_mj == 740


def test_overhead_of_a_failure_that_is_overruled_stays_the_jobs(store: ObjectStore) -> None:
    """The job ends as failed while another run of it has all shards: that one's end stands."""
    job = committed_run(store)
    job.started(LOADED)
    finalise(store, "job", JobState.FAILED, shards=WORKLOAD.num_shards, overhead=SPENT)
    assert end(job).state == "completed"
    manifest = find_manifest(store, "job")
    assert manifest is not None
    assert manifest.state == "completed"
    assert manifest.overhead.energy_mj == 740


def test_a_replica_that_is_not_up_yet_is_not_asked_how_long_it_ran(store: ObjectStore) -> None:
    """It would answer after its model is loaded, and the job would end as much later."""
    book, events = JobBook(), EventQueue()
    options = FleetOptions(store.config, "local")
    slots = Slots(options, "run", book, Knowledge(store, options, "run"), events)
    job = JobRun(WORKLOAD, store)
    job.update("r", state=ReplicaState.WAKING)
    waking = SlotHandle(SLOT.spec, actor=object())  # which has nothing to be asked
    asyncio.run(slots.end_job(waking, job))
    assert job.view("r").state == "waking"
