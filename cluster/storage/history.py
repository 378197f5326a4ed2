"""The history of a job that the service has: numbered events, which anybody may append to.

An event is written once under the next free number, so that readers can go on where they were.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from typing import Literal

from pydantic import PositiveInt

from cluster.errors import NotFound
from cluster.states import JobState
from cluster.storage.commit import create_once, newest_number, parse_record
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import SCHEMA_VERSION, Record

EventKind = Literal["submitted", "intent", "claimed", "state", "note"]


class JobEvent(Record):
    """Something that happened to a job. number: its place in the history.

    state: the job's from then on; None where it has not changed. by: a user or a server.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    job_id: str
    number: PositiveInt
    kind: EventKind
    state: JobState | None = None
    message: str
    by: str
    at: datetime
    token: str


def append_event(
    store: ObjectStore,
    job_id: str,
    kind: EventKind,
    message: str,
    at: datetime,
    *,
    by: str,
    state: JobState | None = None,
) -> JobEvent:
    """Add an event at the end of the job's history."""
    number = last_event(store, job_id)
    while True:
        number += 1
        event = JobEvent(
            job_id=job_id,
            number=number,
            kind=kind,
            state=state,
            message=message,
            by=by,
            at=at,
            token=uuid.uuid4().hex,
        )
        if _create(store, event).token == event.token:
            return event


def begin_history(
    store: ObjectStore, job_id: str, message: str, at: datetime, *, by: str
) -> JobEvent:
    """The first event of the job, that it is submitted: written once, however often this is called
    and by however many."""
    event = JobEvent(
        job_id=job_id,
        number=1,
        kind="submitted",
        state=JobState.QUEUED,
        message=message,
        by=by,
        at=at,
        token=uuid.uuid4().hex,
    )
    return _create(store, event)


def read_events(store: ObjectStore, job_id: str, after: int = 0) -> Iterator[JobEvent]:
    """The events with greater numbers, in order."""
    layout = JobLayout(job_id)
    start = layout.event(after) if after else ""
    for info in store.list(layout.events, after=start):
        with suppress(NotFound):
            yield parse_record(JobEvent, info.key, store.get(info.key))


def last_event(store: ObjectStore, job_id: str) -> int:
    """The number of the newest event; 0 if there is none."""
    return newest_number(store, JobLayout(job_id).events)


def _create(store: ObjectStore, event: JobEvent) -> JobEvent:
    """The event that has this one's number, which is this one unless another came first."""
    key = JobLayout(event.job_id).event(event.number)
    return parse_record(JobEvent, key, create_once(store, key, event.model_dump_json().encode()))
