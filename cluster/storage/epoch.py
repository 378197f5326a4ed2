"""Which run owns a job: the newest claim. An older run may still commit, but not end the job."""

from __future__ import annotations

import uuid

from cluster.storage.commit import create_once
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore


def claim(store: ObjectStore, job_id: str) -> int:
    """Claim the job for this run; returns its number, greater than that of every earlier run."""
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
