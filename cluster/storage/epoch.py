"""Who runs a job: the newest claim. An older run that goes on may commit, never end the job."""

from __future__ import annotations

import uuid

from cluster.storage.commit import create_once
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore


def claim(store: ObjectStore, job_id: str) -> int:
    """Become the run of this job: a number greater than that of every run before."""
    token = uuid.uuid4().hex.encode()
    epoch = newest(store, job_id)
    while True:
        epoch += 1
        if create_once(store, JobLayout(job_id).epoch(epoch), token) == token:
            return epoch


def newest(store: ObjectStore, job_id: str) -> int:
    """The number of the newest run of this job; 0 if there was none."""
    prefix = JobLayout(job_id).epochs
    names = (info.key.removeprefix(prefix).partition(".")[0] for info in store.list(prefix))
    return max((int(name) for name in names if name.isdecimal()), default=0)
