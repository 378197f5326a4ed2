"""Pages of jobs: each job once, newest first, and no more read than is shown."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.summaries import list_jobs, page_of_jobs
from tests.support import jobfactory
from tests.support.counting_store import CountingStore
from tests.support.effort import examples

IDS = [f"20260101T0000{number:02d}-abcdef" for number in range(7)] + ["a-name"]


@pytest.fixture
def store(memory_dir: Path) -> ObjectStore:
    opened = open_store(str(memory_dir), probe=False)
    for job_id in IDS:
        jobfactory.submit(opened, jobfactory.workload(job_id))
    opened.put("jobs/20260101T000003-abcdee/notes.txt", b"no job")
    return opened


@settings(
    max_examples=examples(40, 10), suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(limit=st.integers(1, 12))
def test_pages_follow_each_other(store: ObjectStore, limit: int) -> None:
    seen: list[str] = []
    after = None
    while True:
        page = page_of_jobs(store, limit, after)
        seen += [job.job_id for job in page.jobs]
        assert len(page.jobs) == limit or not page.left
        after = page.next
        if after is None:
            break
    assert seen == sorted(IDS, reverse=True)
    assert {job.job_id for job in list_jobs(store)} == set(seen)


def test_only_the_pages_jobs_are_read(store: ObjectStore) -> None:
    counting = CountingStore(store)
    page = page_of_jobs(counting, 2)
    assert [job.job_id for job in page.jobs] == ["a-name", IDS[6]]
    assert counting.calls["get"] == 2
    assert counting.calls["list_dirs"] == 1


def test_an_id_that_is_gone_still_says_where_to_go_on(store: ObjectStore) -> None:
    page = page_of_jobs(store, 1, "20260101T000004-zzz")
    assert [job.job_id for job in page.jobs] == [IDS[4]]
    assert page_of_jobs(store, 1, "0").jobs == ()
