"""What users want of a job that the service has: to run, to pause, or to be cancelled.

Each change is an object of its own, created only if its number is free, so that changes have one
order whoever makes them. What is observed of the job stands elsewhere (``runs``, commits, marker).
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Literal

from pydantic import PositiveInt

from cluster.errors import UserError
from cluster.storage.commit import create_once, newest_number, parse_record
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import SCHEMA_VERSION, Record

Wanted = Literal["run", "pause", "cancel"]


class Intent(Record):
    """One change of what is wanted. by: who asked for it. reason: in their words, or empty."""

    schema_version: Literal[1] = SCHEMA_VERSION
    job_id: str
    number: PositiveInt
    wanted: Wanted
    by: str
    reason: str = ""
    at: datetime
    token: str


class TooLate(UserError):
    """The job cannot be what is asked for any more: it is cancelled."""


def newest_intent(store: ObjectStore, job_id: str) -> Intent | None:
    """What is wanted of the job now; None of a job that the service does not have."""
    newest = newest_number(store, JobLayout(job_id).intents)
    if newest == 0:
        return None
    key = JobLayout(job_id).intent(newest)
    return parse_record(Intent, key, store.get(key))


def want(
    store: ObjectStore,
    job_id: str,
    wanted: Wanted,
    at: datetime,
    *,
    by: str,
    reason: str = "",
    beyond: int = 0,
) -> tuple[Intent, bool]:
    """Want this of the job from now on: (the newest intent, whether this call has changed it).

    beyond: asking for what is wanted already changes nothing, unless that is the intent of this
        number: a job that paused by itself, while it was wanted to run, is resumed so. Raises
        TooLate for anything but ``cancel`` of a job that is cancelled.
    """
    while True:
        now = newest_intent(store, job_id)
        if now is not None and now.wanted == wanted and now.number > beyond:
            return now, False
        if now is not None and now.wanted == "cancel":
            if wanted == "cancel":
                return now, False
            raise TooLate(f"job {job_id} is cancelled, by {now.by}; submit it again to run it")
        intent = Intent(
            job_id=job_id,
            number=1 if now is None else now.number + 1,
            wanted=wanted,
            by=by,
            reason=reason,
            at=at,
            token=uuid.uuid4().hex,
        )
        key = JobLayout(job_id).intent(intent.number)
        stored = create_once(store, key, intent.model_dump_json().encode())
        if parse_record(Intent, key, stored).token == intent.token:
            return intent, True
