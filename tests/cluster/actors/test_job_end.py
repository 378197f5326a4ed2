"""What a run claims at its end is what is in the store then."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from cluster.actors.job_run import JobRun
from cluster.actors.options import ModelWork, RunRequest
from cluster.energy import ZERO_ENERGY
from cluster.progress import Snapshot
from cluster.scheduler.commands import FinishJob
from cluster.scheduler.request import JobRequest
from cluster.states import JobState
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import Workload
from tests.support import jobfactory

WORKLOAD = jobfactory.workload()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
def store(place: Path) -> ObjectStore:
    return open_store(str(place))


def committed_run(store: ObjectStore, workload: Workload = WORKLOAD) -> JobRun:
    """A run that has just committed every shard."""
    request = JobRequest("job", "m", workload.count, workload.shard_images)
    job = JobRun(RunRequest(workload, request, ModelWork(1.0, 1, 1)), store)
    job.open()
    job.ready("r", ZERO_ENERGY)
    for index in range(workload.num_shards):
        record = jobfactory.write_shard(store, workload, index)
        job.committed("r", record)
    return job


def end(job: JobRun, state: str = "completed") -> Snapshot:
    asyncio.run(job.end(FinishJob("job", JobState(state), "")))
    return job.snapshot()


def test_a_complete_job_claims_all_of_it(store: ObjectStore) -> None:
    job = committed_run(store)
    last = end(job)
    assert (last.state, last.committed_images) == ("completed", 20)


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
