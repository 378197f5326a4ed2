"""A run of a large job leaves checkpoints behind; the next one reads these and what is beside."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

import pytest

from cluster.actors import job_run
from cluster.actors.job_run import JobRun
from cluster.actors.outcomes import done_of
from cluster.scheduler.commands import FinishJob
from cluster.states import JobState
from cluster.storage.commit import find_manifest, read_commits
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from tests.support import jobfactory
from tests.support.counting_store import CountingStore

JOB = jobfactory.workload(count=20, shard_images=2)  # 10 shards
LAYOUT = JobLayout("job")
EVERY, FRESH = 4, 2


@pytest.fixture
def store(memory_dir: Path, monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    """Where a job of more than four shards is a large one."""
    keeper = partial(job_run.Checkpointer, every=EVERY, fresh=FRESH)
    monkeypatch.setattr(job_run, "Checkpointer", keeper)
    for name in ("open_commits", "finalise"):
        monkeypatch.setattr(job_run, name, partial(getattr(job_run, name), every=EVERY))
    return open_store(str(memory_dir), probe=False)


def run(store: ObjectStore, *shards: int) -> JobRun:
    job = JobRun(JOB, store)
    job.open()
    for shard in shards:
        commit(job, store, shard)
    return job


def commit(job: JobRun, store: ObjectStore, shard: int) -> None:
    """As a replica reports it."""
    record = jobfactory.write_shard(store, JOB, shard)
    job.committed("r", done_of(1, record, "won"))
    job.keep(record)


def end(job: JobRun, state: JobState) -> None:
    asyncio.run(job.end(FinishJob("job", state, "")))


def checkpoints(store: ObjectStore) -> int:
    return len(list(store.list(LAYOUT.checkpoints)))


def test_a_job_is_resumed_from_checkpoints_and_completed(store: ObjectStore) -> None:
    jobfactory.submit(store, JOB)
    first = run(store, 1, 0, 2, 3, 4, 5, 6)
    end(first, JobState.STOPPED)
    assert checkpoints(store) == 2

    counting = CountingStore(store)
    second = JobRun(JOB, counting)
    assert second.open() == ((0, 7),)
    assert [key for key in counting.listed if key.startswith(LAYOUT.commits)] == [LAYOUT.commit(6)]
    assert second.snapshot().committed_images == 14
    assert second.snapshot().energy == first.snapshot().energy
    for shard in (9, 8, 7):
        commit(second, store, shard)
    end(second, JobState.COMPLETED)
    assert second.snapshot().state == JobState.COMPLETED
    manifest = find_manifest(store, "job")
    assert manifest is not None
    assert (manifest.images, manifest.commits, len(manifest.checkpoints)) == (20, (), 3)


def test_commits_without_a_checkpoint_get_one_when_the_job_is_resumed(store: ObjectStore) -> None:
    """An older version wrote them, or a run that was killed."""
    jobfactory.write_job(store, JOB, shards=range(9), finish=False)
    job = JobRun(JOB, store)
    assert job.open() == ((0, 9),)
    assert checkpoints(store) == 2  # the one commit of the third range can wait
    assert job.snapshot().committed_images == 18


def test_a_checkpoint_that_cannot_be_written_does_not_stop_the_job(store: ObjectStore) -> None:
    jobfactory.submit(store, JOB)
    job = run(store)
    store.put(f"{LAYOUT.root}checkpoints", b"in the way")
    for shard in range(10):
        commit(job, store, shard)
    end(job, JobState.STOPPED)
    assert job.snapshot().committed_images == 20
    store.delete(f"{LAYOUT.root}checkpoints")
    end(run(store), JobState.COMPLETED)
    manifest = find_manifest(store, "job")
    assert manifest is not None
    assert sum(ref.count for ref in manifest.checkpoints) == len(read_commits(store, "job")) == 10
