"""What nobody needs any more in a store: found here, deleted by whoever asked for it.

Ages are by the stamps that writers left, and are days where an error of a clock is minutes. Nothing
of a job that may still run is touched: an attempt that is under way may yet be committed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.errors import Fatal, NotFound
from cluster.states import JobState
from cluster.storage.commit import ended_state, find_manifest, parse_record
from cluster.storage.commits import commits_of, open_commits
from cluster.storage.finish import differences
from cluster.storage.intents import newest_intent
from cluster.storage.job_rows import InputsBegun
from cluster.storage.layout import (
    IDEMPOTENCY,
    JOBS,
    SERVERS,
    USAGE,
    JobLayout,
    parse_usage_day,
    server_key,
)
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import SILENCE_S, read_beats
from cluster.types import JobRecord, Manifest
from jobs.defaults import JOB_ID
from jobs.service.idempotency import Request
from jobs.service.listing import active_ids
from jobs.service.presence import Presence

GRACE = timedelta(days=1)  # after which no attempt at an ended job, and no submission, is under way
KEYS_KEPT = timedelta(days=7)  # so long a request may be repeated

_HALF_MADE = "of a job that was never made: its submission broke off"


@dataclass(frozen=True)
class Garbage:
    """An object that nobody needs. size_bytes: None where it is not known. job_id: only as long as
    this job does not exist."""

    key: str
    size_bytes: int | None
    why: str
    job_id: str | None = None


def find_garbage(
    store: ObjectStore, now: datetime, on_job: Callable[[int, int], object] = lambda *_: None
) -> Iterator[Garbage]:
    """Everything that may go. on_job(done, total): called as the jobs are gone through."""
    ids = [job_id for job_id in store.list_dirs(JOBS) if JOB_ID.fullmatch(job_id)]
    active = set(active_ids(store))
    for at, job_id in enumerate(ids):
        on_job(at, len(ids))
        yield from _of_job(store, job_id, now, active=job_id in active)
    yield from _old_requests(store, now)
    yield from _lost_servers(store)
    for info in store.list(USAGE):
        day = parse_usage_day(info.key)
        if day is not None and day < (now - GRACE).date():
            yield Garbage(info.key, info.size_bytes, "counts towards the limits of a past day")


def delete(store: ObjectStore, garbage: Garbage) -> None:
    """Delete it, unless it has become of use since."""
    if garbage.job_id is not None:
        with suppress(NotFound):
            store.get(JobLayout(garbage.job_id).spec)
            return
    store.delete(garbage.key)


def _of_job(store: ObjectStore, job_id: str, now: datetime, *, active: bool) -> Iterator[Garbage]:
    layout = JobLayout(job_id)
    yield from _other_rows(store, layout)
    ended = ended_state(store, job_id)
    if ended is None:
        yield from _half_made(store, layout, now)
        return
    if active:
        yield Garbage(layout.active, 0, "says that a job is active which has ended")
    manifest = find_manifest(store, job_id)
    if manifest is None:
        return
    with suppress(Fatal):  # what is damaged is for `un0 verify`, and is not touched
        yield from _uncommitted(store, manifest, settled=manifest.finished_at < now - GRACE)


def _uncommitted(store: ObjectStore, manifest: Manifest, *, settled: bool) -> Iterator[Garbage]:
    """Attempts that lost, or that nobody will commit any more."""
    if manifest.state == JobState.COMPLETED:
        commits = commits_of(store, manifest)
    elif settled:
        commits = open_commits(store, manifest.job_id)
    else:
        return
    for key, found, committed in differences(store, commits):
        if committed is None:
            yield Garbage(key, found, "an attempt without a commit, of a job that has ended")


def _half_made(store: ObjectStore, layout: JobLayout, now: datetime) -> Iterator[Garbage]:
    """What a submission wrote before it broke off, if that was long ago."""
    began = [found.at for found in _begun(store, layout)]
    intent = newest_intent(store, layout.job_id)
    if intent is not None:
        began.append(intent.at)
    if not began or max(began) > now - GRACE:
        return
    with suppress(NotFound):
        store.get(layout.spec)
        return
    yield Garbage(layout.active, 0, _HALF_MADE, layout.job_id)
    for info in store.list(layout.root):
        yield Garbage(info.key, info.size_bytes, _HALF_MADE, layout.job_id)


def _begun(store: ObjectStore, layout: JobLayout) -> Iterator[InputsBegun]:
    for digest in store.list_dirs(layout.inputs):
        with suppress(NotFound, Fatal):
            key = layout.inputs_begun(digest)
            yield parse_record(InputsBegun, key, store.get(key))


def _other_rows(store: ObjectStore, layout: JobLayout) -> Iterator[Garbage]:
    """Rows that were written for a job of this id, but not for the one that there is."""
    digests = store.list_dirs(layout.inputs)
    if not digests:
        return
    try:
        inputs = parse_record(JobRecord, layout.spec, store.get(layout.spec)).workload.inputs
    except (NotFound, Fatal):
        return
    for digest in digests:
        if inputs is None or digest != inputs.digest:
            for info in store.list(f"{layout.inputs}{digest}/"):
                yield Garbage(info.key, info.size_bytes, "rows that the job of this id is not of")


def _old_requests(store: ObjectStore, now: datetime) -> Iterator[Garbage]:
    for info in store.list(IDEMPOTENCY):
        with suppress(NotFound, Fatal):
            request = parse_record(Request, info.key, store.get(info.key))
            if request.at < now - KEYS_KEPT:
                yield Garbage(info.key, info.size_bytes, "an idempotency key older than 7 days")


def _lost_servers(store: ObjectStore) -> Iterator[Garbage]:
    """Signs of life of servers that ended without signing off. Waits where one may be dead."""
    alive = Presence(store, patience_s=SILENCE_S).alive()
    gone = {server_key(name) for name in read_beats(store)} - {server_key(n) for n in alive}
    for info in store.list(SERVERS):
        if info.key in gone:
            yield Garbage(info.key, info.size_bytes, "a server that is gone")
