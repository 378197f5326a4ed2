"""Stores of versions without checkpoints, and jobs that need none: read and written as ever."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cluster.ledger.sql import query
from cluster.storage import finish
from cluster.storage.commit import find_manifest, read_commits
from cluster.storage.commits import open_commits
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.reader import iter_images
from cluster.storage.summaries import list_jobs, summarise
from cluster.storage.verify import verify
from tests.support import jobfactory

# Two jobs of 8 images in shards of 3: one ended, one with shards 0 and 2.
WRITTEN_BEFORE = Path(__file__).with_name("fixtures") / "before_checkpoints"


@pytest.fixture
def store(memory_dir: Path) -> ObjectStore:
    shutil.copytree(WRITTEN_BEFORE, memory_dir, dirs_exist_ok=True)
    return open_store(str(memory_dir), probe=False)


def test_an_old_store_is_read(store: ObjectStore) -> None:
    jobs = {job.job_id: (job.state, job.images, job.energy.energy_mj) for job in list_jobs(store)}
    assert jobs == {"ended": ("completed", 8, 9000), "open": ("incomplete", 5, 6000)}
    assert verify(store, "ended").ok
    assert [row["index"] for row in iter_images(store, "open", columns=["index"])] == [
        0,
        1,
        2,
        6,
        7,
    ]
    rows = query(store, "select job_id, count(*) as n from commits group by all order by all")
    assert rows.to_pylist() == [{"job_id": "ended", "n": 3}, {"job_id": "open", "n": 2}]


def test_a_small_job_ends_byte_for_byte_as_before(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = JobLayout("ended")
    before = store.get(layout.manifest)
    manifest = find_manifest(store, "ended")
    assert manifest is not None
    assert manifest.model_dump_json().encode() == before
    monkeypatch.setattr(finish, "utc_now", lambda: manifest.finished_at)
    store.delete(layout.manifest)
    finalise(store, "ended", "completed", shards=3)
    assert store.get(layout.manifest) == before
    assert store.list_dirs(layout.root) == ["attempts", "commits"]


def test_an_old_job_goes_on_and_ends_with_checkpoints(store: ObjectStore) -> None:
    job = jobfactory.workload("open", count=8, shard_images=3)
    jobfactory.write_shard(store, job, 1)
    manifest = finalise(store, "open", "completed", shards=3, every=2)
    assert (len(manifest.checkpoints), manifest.commits, manifest.images) == (2, (), 8)
    assert verify(store, "open").ok


def test_a_manifest_that_holds_all_commits_of_a_large_job_is_read(store: ObjectStore) -> None:
    """As older versions wrote it: no checkpoint is looked for."""
    job = jobfactory.workload("large", count=30, shard_images=1, width=2, height=2)
    jobfactory.write_job(store, job, finish=False)
    manifest = finalise(store, "large", "completed", shards=30)
    assert len(manifest.commits) == 30
    summary = summarise(store, "large")
    assert list(summary.commits) == list(read_commits(store, "large").values())
    assert (summary.images, summary.energy) == (30, manifest.energy)
    assert open_commits(store, "large").checkpoints == ()
    assert summary.submitted_at == datetime(2026, 1, 1, tzinfo=UTC)
