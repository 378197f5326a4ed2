"""The commit protocol: a shard is done once its commit record exists.

An attempt writes its objects under keys of its own, then creates the commit record, which succeeds
only if it is absent. The attempt that creates it has won; objects of other attempts are garbage.
Readers use only objects named in commit records, so retries, lost replies, crashes and replicas
that were given up can neither duplicate nor lose a shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import chain
from typing import Literal, TypeVar

from pydantic import ValidationError

from cluster.errors import (
    ClusterError,
    CommitStateUnknown,
    Fatal,
    NotFound,
    Retryable,
)
from cluster.states import TERMINAL, JobState
from cluster.storage.backoff import Backoff
from cluster.storage.layout import JobLayout, shard_of_commit
from cluster.storage.object_store import ObjectStore
from cluster.types import CommitRecord, Manifest, Record

Outcome = Literal["won", "lost"]

_GET_THREADS = 16
_FEW = 4  # so many records are read one after the other, without threads
_AT_ONCE = 2_000  # so many are asked for ahead of the reader
_A_TASK = 10  # so many a thread reads in a row: handing over costs as much as a local file
R = TypeVar("R", bound=Record)


def commit(store: ObjectStore, record: CommitRecord, *, backoff: Backoff | None = None) -> Outcome:
    """Commit the record's shard, unless another attempt has.

    Call it after the record's objects are written. If the attempt has lost, its objects are
    deleted, as far as possible. Raises CommitStateUnknown if the outcome is unknown: the attempt
    may have won, so its objects must stay.
    """
    key = JobLayout(record.job_id).commit(record.shard)
    data = record.model_dump_json().encode()
    stored = parse_record(CommitRecord, key, create_once(store, key, data, backoff=backoff))
    if stored.token == record.token:
        return "won"
    for name in {o.key for o in record.objects} - {o.key for o in stored.objects}:
        with suppress(ClusterError):  # the job's end sweeps again
            store.delete(name)
    return "lost"


def create_once(
    store: ObjectStore, key: str, data: bytes, *, backoff: Backoff | None = None
) -> bytes:
    """Create the object unless the key exists; return what is stored at the key.

    To see who has won a race, every writer's data must differ (contain a token). Raises
    CommitStateUnknown if no try gave an answer.
    """
    backoff = backoff or Backoff()
    last: Exception | None = None
    for _ in backoff.tries():
        try:
            if store.put_if_absent(key, data):
                return data
        except Retryable as error:
            last = error
        # It exists, or its state is unknown. Either way it may be ours: a request whose reply
        # was lost is repeated and then refused because of itself.
        try:
            return store.get(key)
        except (NotFound, Retryable) as error:
            last = last if isinstance(error, NotFound) and last else error
    raise CommitStateUnknown(
        f"{key}: whether it was written is unknown after {backoff.attempts} tries; the last "
        f"error: {last}"
    ) from last


def newest_number(store: ObjectStore, prefix: str) -> int:
    """The greatest number that names an object below the prefix, as ``000003.json`` does; 0 where
    there is none."""
    names = (info.key.removeprefix(prefix).partition(".")[0] for info in store.list(prefix))
    return max((int(name) for name in names if name.isdecimal()), default=0)


def committed_shards(store: ObjectStore, job_id: str) -> set[int]:
    """The shards that are done, from one listing."""
    keys = (info.key for info in store.list(JobLayout(job_id).commits))
    return {shard for shard in map(shard_of_commit, keys) if shard is not None}


def read_commits(store: ObjectStore, job_id: str) -> dict[int, CommitRecord]:
    """Every commit record of the job by shard, in order, each read by itself: for small jobs, and
    to hold checkpoints to. Raises Fatal if one is damaged."""
    shards = sorted(committed_shards(store, job_id))
    return {record.shard: record for record in read_records(store, job_id, shards)}


def read_records(store: ObjectStore, job_id: str, shards: Sequence[int]) -> Iterator[CommitRecord]:
    """The commit records of these shards, in their order. Raises Fatal if one is damaged."""
    if len(shards) <= _FEW:
        yield from (read_record(store, job_id, shard) for shard in shards)
        return

    def some(part: Sequence[int]) -> list[CommitRecord]:
        return [read_record(store, job_id, shard) for shard in part]

    with ThreadPoolExecutor(_GET_THREADS) as pool:
        for at in range(0, len(shards), _AT_ONCE):
            ahead = shards[at : at + _AT_ONCE]
            parts = [ahead[low : low + _A_TASK] for low in range(0, len(ahead), _A_TASK)]
            yield from chain.from_iterable(pool.map(some, parts))


def find_commit(store: ObjectStore, job_id: str, shard: int) -> CommitRecord | None:
    """The shard's commit record; None if it has none. Raises Fatal if it is damaged."""
    try:
        return read_record(store, job_id, shard)
    except NotFound:
        return None


def read_record(store: ObjectStore, job_id: str, shard: int) -> CommitRecord:
    """A shard's commit record. Raises NotFound if there is none, Fatal if it is damaged."""
    key = JobLayout(job_id).commit(shard)
    record = parse_record(CommitRecord, key, store.get(key))
    if (record.job_id, record.shard) != (job_id, shard):
        raise Fatal(f"{key}: it speaks of job {record.job_id}, shard {record.shard}")
    return record


def reopen(store: ObjectStore, job_id: str) -> Manifest | None:
    """Make the job ready to run or resume, whatever its state. Call it before each run.

    A job that ended as cancelled, failed or with errors loses its cancel request, its manifest
    and its marker; its commits stay. The manifest is returned, so that its overhead can be carried
    on.
    A completed job is not changed: its manifest is returned, and there is nothing to run.
    A cancel request that has not been carried out yet stays in force.
    """
    layout = JobLayout(job_id)
    manifest = find_manifest(store, job_id)
    if manifest and manifest.state == JobState.COMPLETED:
        return manifest
    if manifest or ended_state(store, job_id):
        # In this order a crash in here leaves a job that still looks ended, to be reopened.
        store.delete(layout.manifest)
        for state in set(TERMINAL) - {JobState.COMPLETED}:
            store.delete(layout.marker(state))
    return manifest


def find_manifest(store: ObjectStore, job_id: str) -> Manifest | None:
    """The job's manifest; None if it has not ended."""
    key = JobLayout(job_id).manifest
    try:
        return parse_record(Manifest, key, store.get(key))
    except NotFound:
        return None


def ended_state(store: ObjectStore, job_id: str) -> JobState | None:
    """The state in which the job ended, by its marker; None if it has not ended."""
    layout = JobLayout(job_id)
    markers = {info.key for info in store.list(f"{layout.root}_")}
    return next((state for state in TERMINAL if layout.marker(state) in markers), None)


def parse_record(kind: type[R], key: str, data: bytes) -> R:
    """The JSON object at the key as a record. Fatal, naming the key, if it is not one."""
    try:
        return kind.model_validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        raise Fatal(
            f"{key}: not a {kind.__name__} this version can read ({where}: {first['msg']}): it is "
            "damaged, or of a newer version of un0"
        ) from error
