"""Which run owns a job: the newest claim. An older run may still commit, but not end the job.

A claim of the service names the server that holds the run, and is told from a command's, and from
one that was read in part, by its form.
"""

from __future__ import annotations

import re
import uuid

from cluster.errors import Retryable
from cluster.storage.commit import create_once, newest_number
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


def claim_next(store: ObjectStore, job_id: str, after: int, holder: str) -> int | None:
    """Claim the job's run after this one for a server; None if another has claimed it before."""
    data = f"by {holder} {uuid.uuid4().hex}\n".encode()
    epoch = after + 1
    return epoch if create_once(store, JobLayout(job_id).epoch(epoch), data) == data else None


def holder_of(store: ObjectStore, job_id: str, epoch: int) -> str | None:
    """The server that holds the run; None where no server but a command has claimed it.

    Raises Retryable for a claim that was read in part: to take its job for free would be wrong.
    """
    key = JobLayout(job_id).epoch(epoch)
    text = store.get(key).decode(errors="replace")
    if re.fullmatch("[0-9a-f]{32}", text):
        return None
    whole = re.fullmatch(r"by (\S+) [0-9a-f]{32}\n", text)
    if whole is None:
        raise Retryable(f"{key}: {len(text)} characters that are no whole claim")
    return whole[1]


def newest(store: ObjectStore, job_id: str) -> int:
    """The number of the newest run of this job; 0 if there was none."""
    return newest_number(store, JobLayout(job_id).epochs)
