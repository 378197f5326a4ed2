"""What an owner may ask for in a day."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cluster.clock import utc_now
from cluster.storage.layout import LIMITS
from cluster.storage.object_store import ObjectStore
from cluster.storage.summaries import job_ids
from jobs.service.api import OverLimit
from jobs.service.core import StoreService
from jobs.service.limits import Asked, OwnerLimits, admit
from jobs.spec import JobSpec
from tests.support.fake_server import without_models


@pytest.fixture(autouse=True)
def _no_models(monkeypatch: pytest.MonkeyPatch) -> None:
    without_models(monkeypatch)


def limit(store: ObjectStore, **owners: Any) -> None:
    store.put(LIMITS, json.dumps({"owners": owners}).encode())


def test_what_is_too_much_is_refused_and_leaves_nothing(local: ObjectStore) -> None:
    service = StoreService(local)
    limit(local, ann={"images_a_day": 100, "jobs_a_day": 2})
    service.submit(JobSpec(count=60), by="ann")
    with pytest.raises(OverLimit) as refused:
        service.submit(JobSpec(count=41), by="ann", idempotency_key="k")
    frees = utc_now().date() + timedelta(days=1)
    for word in ("'ann'", "100 images a day", "60 today", "of 41", f"{frees}T00:00Z"):
        assert word in str(refused.value)
    assert len(job_ids(local)) == 1
    service.submit(JobSpec(count=40), by="ann", idempotency_key="k")
    with pytest.raises(OverLimit, match="2 jobs a day"):
        service.submit(JobSpec(count=1), by="ann")
    service.submit(JobSpec(count=40), by="ann", idempotency_key="k")
    service.submit(JobSpec(count=10**6), by="bob")


def test_joules_are_those_of_the_quote_or_the_budget(local: ObjectStore) -> None:
    service = StoreService(local)
    limit(local, **{"*": {"joules_a_day": 1000}})
    with pytest.raises(OverLimit, match="energy_budget"):
        service.submit(JobSpec(count=10), by="ann")
    service.submit(JobSpec(count=10, energy_budget=800.0), by="ann")
    with pytest.raises(OverLimit, match="800 J today, and this job takes 300 J"):
        service.submit(JobSpec(count=10, energy_budget=300.0), by="ann")
    service.submit(JobSpec(count=10, energy_budget=300.0), by="bob")


def test_of_many_at_once_no_more_than_allowed_get_in(local: ObjectStore) -> None:
    limits = OwnerLimits(jobs_a_day=3)
    at = datetime(2026, 1, 1, tzinfo=UTC)

    def one(number: int) -> bool:
        try:
            admit(local, "ann", limits, Asked(job_id=f"j{number}", images=1, energy_j=None), at)
        except OverLimit:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(one, range(16))) <= 3
    later = at + timedelta(days=1)
    admit(local, "ann", limits, Asked(job_id="next", images=1, energy_j=None), later)
