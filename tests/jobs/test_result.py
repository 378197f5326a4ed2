"""A job's result as programs get it."""

from __future__ import annotations

import json

from cluster.clock import utc_now
from cluster.energy import ZERO_ENERGY
from cluster.progress import Snapshot
from cluster.states import JobState
from cluster.types import JobRecord, SetAside
from jobs.result import result_of
from tests.support.jobfactory import workload

JOB = workload()


def test_shards_that_were_set_aside_are_in_the_json() -> None:
    lost = SetAside(shard=3, attempts=5, reason="its replica died each time")
    snapshot = Snapshot(
        JOB.job_id, JobState.COMPLETED_WITH_ERRORS, 10, 9, 9, 0, 1.0, 1.0, ZERO_ENERGY,
        ZERO_ENERGY, (), set_aside=(lost,),
    )  # fmt: skip
    record = JobRecord(workload=JOB, spec={}, owner="me", submitted_at=utc_now())
    result = result_of(snapshot, "file:///store", record, utc_now())
    written = json.loads(json.dumps(result.as_dict()))
    assert written["set_aside"] == [
        {"shard": 3, "attempts": 5, "reason": "its replica died each time"}
    ]
