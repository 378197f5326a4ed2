"""Exactly once over HTTP: as many jobs as keys, though replies are lost and requests collide."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from cluster.storage.object_store import ObjectStore
from jobs.service.remote import HttpService
from jobs.service.views import JobFilter
from jobs.spec import JobSpec
from tests.support.effort import costly
from tests.support.httpapp import served
from tests.support.lossy_proxy import LossyProxy
from tests.support.memory_service import MemoryService


@pytest.mark.parametrize("submits", costly(50, 1000, fast=1))
def test_as_many_jobs_as_submits_through_a_network_that_loses_replies(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch, submits: int
) -> None:
    service, dice, lock = MemoryService(), random.Random(submits), threading.Lock()

    def lose(head: bytes) -> bool:
        with lock:
            return head.startswith(b"POST") and dice.random() < 0.4

    monkeypatch.setattr("stamina._core.random", SimpleNamespace(uniform=lambda *_: 0.0))
    with served(local, service, monkeypatch) as url, LossyProxy(url, lose) as proxy:
        client = HttpService(proxy.endpoint_url, patience_s=300)
        spec = JobSpec(count=10)
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda _: client.submit(spec, by="x").job_id, range(submits)))
        client.close()
    assert proxy.lost > submits / 4
    assert service.calls["submit"] == submits + proxy.lost
    kept = service.jobs(JobFilter(), page_size=10 * submits).jobs
    assert sorted(made) == sorted(job.job_id for job in kept)
    assert len(set(made)) == submits


def test_twenty_at_once_with_one_key_are_one_job(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, together = MemoryService(), threading.Barrier(20)
    with served(local, service, monkeypatch) as url:
        client = HttpService(url)

        def submit(_: int) -> str:
            together.wait(30)
            return client.submit(JobSpec(count=10), by="x", idempotency_key="one").job_id

        with ThreadPoolExecutor(20) as pool:
            made = set(pool.map(submit, range(20)))
        client.close()
    assert len(made) == 1
    assert len(service.jobs(JobFilter()).jobs) == 1
