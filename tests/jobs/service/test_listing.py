"""Pages of jobs: each job once, newest first, and no more read than is shown."""

from __future__ import annotations

import base64
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.errors import UserError
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.summaries import list_jobs
from jobs.service.core import StoreService
from jobs.service.paging import read_token, token_after
from jobs.service.views import JobFilter
from tests.support import jobfactory
from tests.support.counting_store import CountingStore
from tests.support.effort import examples

ALL = JobFilter()
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
@given(size=st.integers(1, 12), filtered=st.booleans())
def test_pages_follow_each_other(store: ObjectStore, size: int, filtered: bool) -> None:
    service = StoreService(store)
    wanted = JobFilter(owner="tester") if filtered else ALL
    seen: list[str] = []
    token = ""
    while True:
        page = service.jobs(wanted, size, token)
        seen += [job.job_id for job in page.jobs]
        assert len(page.jobs) == size or not page.next_page_token
        token = page.next_page_token
        if not token:
            break
    assert seen == sorted(IDS, reverse=True)
    assert {job.job_id for job in list_jobs(store)} == set(seen)


def test_only_the_pages_jobs_are_read(store: ObjectStore) -> None:
    counting = CountingStore(store)
    page = StoreService(counting).jobs(ALL, 2)
    assert [job.job_id for job in page.jobs] == ["a-name", IDS[6]]
    assert page.left == 7
    assert counting.calls["get"] == 2
    assert counting.calls["list_dirs"] == 1


def test_a_filter_for_jobs_that_run_reads_no_others(store: ObjectStore) -> None:
    counting = CountingStore(store)
    assert StoreService(counting).jobs(JobFilter(state="running")).jobs == ()  # type: ignore[arg-type]
    assert StoreService(counting).jobs(JobFilter(active=True)).jobs == ()
    assert counting.calls["get"] == 0


def test_an_id_that_is_gone_still_says_where_to_go_on(store: ObjectStore) -> None:
    service = StoreService(store)
    page = service.jobs(ALL, 1, token_after("20260101T000004-zzz"))
    assert [job.job_id for job in page.jobs] == [IDS[4]]
    assert service.jobs(ALL, 1, token_after("0")).jobs == ()


def encoded(text: str) -> str:
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "not a token",
        "é",
        "=" * 10,
        encoded("[]"),
        encoded("{}"),
        encoded('{"after": 3}'),
        encoded('{"after": "../x"}'),
        encoded('{"after": "a", "b": 1}'),
        encoded("[" * 250),
        "A" * 5000,
        token_after("a") + "\n",
    ],
)
def test_a_text_that_is_no_token_is_refused(store: ObjectStore, token: str) -> None:
    with pytest.raises(UserError, match="page_token"):
        StoreService(store).jobs(ALL, 5, token)


@given(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True))
def test_a_token_leads_back_to_its_job(job_id: str) -> None:
    assert read_token(token_after(job_id)) == job_id


@given(st.text(max_size=60))
def test_no_text_breaks_the_reader_of_tokens(token: str) -> None:
    with suppress(UserError):
        found = read_token(token)
        assert (found is None) == (token == "")


@pytest.mark.parametrize("size", [0, -1, 1001])
def test_a_page_has_bounds(store: ObjectStore, size: int) -> None:
    with pytest.raises(UserError, match=f"page_size {size}"):
        StoreService(store).jobs(ALL, size)
