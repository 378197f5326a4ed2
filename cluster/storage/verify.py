"""Verify a job in its store: objects, rows, indices, classes and pixels."""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.energy import ZERO_ENERGY, sum_energy
from cluster.errors import Fatal, NotFound
from cluster.scheduler.ranges import Ranges, runs
from cluster.storage.checks import (
    decode_block,
    examples,
    object_faults,
    ranges,
    record_faults,
    row_faults,
)
from cluster.storage.commit import parse_record
from cluster.storage.job_rows import JobRows, input_faults, rows_of
from cluster.storage.layout import JobLayout, holds_images, shard_of_commit
from cluster.storage.named import Named
from cluster.storage.object_store import ObjectStore
from cluster.storage.summaries import load_job
from cluster.types import MISSING_ENERGY, CommitRecord, Energy, Shard, Workload

_THREADS = 4
_FETCH_AHEAD = 1  # shards in memory besides the one being checked
_DECODE_ROWS = 64

OnShard = Callable[[int, int], None]


@dataclass(frozen=True)
class Sample:
    """So many shards of so many, drawn with this seed."""

    shards: int
    of: int
    seed: int


@dataclass(frozen=True)
class VerifyReport:
    """What ``verify`` found.

    images: those that are there and right. problems: one line each, naming a key or a shard and
        what is wrong there.
    pixel_sha256: over (index as little-endian uint64, RGB pixels) of every image in index order:
        equal for equal images, whatever the shards, the attempts and the (lossless) encoding.
        None unless every image of the job is there and right.
    energy: of the commit records that could be read.
    sample: what was checked, if that is not the whole.
    """

    job_id: str
    images: int
    problems: tuple[str, ...]
    pixel_sha256: str | None
    energy: Energy
    sample: Sample | None = None

    @property
    def ok(self) -> bool:
        return not self.problems


def verify(
    store: ObjectStore,
    job_id: str,
    *,
    sample: int | None = None,
    seed: int = 0,
    on_shard: OnShard | None = None,
) -> VerifyReport:
    """Read and check all that the job committed, one shard at a time.

    sample: so many of the committed shards instead, drawn with this seed, beside the set of
    commits. What is left over in a completed job is not looked for then.
    on_shard: called with (shards done, shards to be checked). Whatever is wrong with the job
    becomes a problem in the report. Raises UserError for an unknown job, and what a store raises
    that cannot be read at all.
    """
    workload = load_job(store, job_id).workload
    committed, problems = _committed(store, workload)
    if sample is None:
        problems += input_faults(store, workload)
    total, drawn = workload.num_shards, None
    if sample is not None:
        committed = sorted(random.Random(seed).sample(committed, min(sample, len(committed))))
        total, drawn = len(committed), Sample(len(committed), workload.num_shards, seed)
    named = Named(store, workload)
    check = _Check(workload, problems)

    def records() -> Iterator[CommitRecord]:
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="verify") as pool:
            fetched = _fetch_ahead(pool, store, workload, committed)
            for done, shard in enumerate(fetched, start=1):
                check.shard(shard, pool)
                if shard.record is not None:
                    yield shard.record
                if on_shard is not None:
                    on_shard(done, total)

    differing = list(named.differing(records(), None if drawn is None else committed))
    problems += named.problems
    problems += differing
    if drawn is None:
        problems += named.left_over()
    return VerifyReport(
        job_id=job_id,
        images=check.images,
        problems=tuple(problems),
        pixel_sha256=check.hash.hexdigest() if check.images == workload.count else None,
        energy=check.energy if check.records else MISSING_ENERGY,
        sample=drawn,
    )


@dataclass
class _Fetched:
    """A shard as the store holds it. ``blobs``: its image objects; None if any is damaged.
    ``rows``: what its images are of; None if that is damaged."""

    shard: Shard
    record: CommitRecord | None = None
    blobs: list[bytes] | None = None
    rows: JobRows | None = None
    problems: list[str] = field(default_factory=list)


@dataclass
class _Check:
    """Goes through fetched shards in order, collecting problems and hashing pixels."""

    workload: Workload
    problems: list[str]
    records: int = 0
    energy: Energy = ZERO_ENERGY
    images: int = 0
    hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def shard(self, fetched: _Fetched, pool: ThreadPoolExecutor) -> None:
        self.problems += fetched.problems
        if fetched.record is None:
            return
        self.records += 1
        self.energy = sum_energy([self.energy, fetched.record.energy])
        if fetched.blobs is None or fetched.rows is None:
            return
        place = f"{fetched.record.objects[0].key} (shard {fetched.shard.index})"
        try:
            table = pa.concat_tables(pq.read_table(pa.BufferReader(b)) for b in fetched.blobs)
        except (pa.ArrowException, OSError) as error:
            self.problems.append(f"{place}: not readable as Parquet: {error}")
            return
        record, rows = fetched.record, fetched.rows
        faults = list(row_faults(self.workload, fetched.shard, record, table, rows))
        self.problems += faults
        if not faults:
            self._pixels(place, table, pool)

    def _pixels(self, place: str, table: pa.Table, pool: ThreadPoolExecutor) -> None:
        batches = table.select(["index", "image"]).to_batches(max_chunksize=_DECODE_ROWS)
        size = {"width": self.workload.width, "height": self.workload.height}
        faults: list[str] = []
        for block, wrong in pool.map(partial(decode_block, **size), batches):
            self.hash.update(block)
            faults += wrong
        self.images += table.num_rows - len(faults)
        if faults:
            self.problems.append(f"{place}: {len(faults)} bad images: {examples(faults)}")


def _committed(store: ObjectStore, workload: Workload) -> tuple[list[int], list[str]]:
    """The committed shards of the job's grid, and what is wrong with their set."""
    prefix = JobLayout(workload.job_id).commits
    shards: list[int] = []
    problems: list[str] = []
    for info in store.list(prefix):
        shard = shard_of_commit(info.key)
        if shard is None:
            problems.append(f"{info.key}: not a commit record's name")
        elif shard >= workload.num_shards:
            problems.append(f"{info.key}: the job has only {workload.num_shards} shards")
        else:
            shards.append(shard)
    if missing := Ranges(runs(shards)).missing(0, workload.num_shards):
        lacking = [shard for first, stop in missing for shard in range(first, stop)]
        problems.append(
            f"{prefix}: {len(lacking)} of {workload.num_shards} shards are not committed: "
            f"{ranges(lacking)}"
        )
    return shards, problems


def _fetch_ahead(
    pool: ThreadPoolExecutor, store: ObjectStore, workload: Workload, shards: Iterable[int]
) -> Iterator[_Fetched]:
    pending: deque[Future[_Fetched]] = deque()
    for index in shards:
        pending.append(pool.submit(_fetch, store, workload, workload.shard(index)))
        if len(pending) > _FETCH_AHEAD:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


def _fetch(store: ObjectStore, workload: Workload, shard: Shard) -> _Fetched:
    fetched = _Fetched(shard)
    key = JobLayout(workload.job_id).commit(shard.index)
    try:
        fetched.record = parse_record(CommitRecord, key, store.get(key))
        fetched.rows = rows_of(store, workload, shard.start, shard.stop)
    except (Fatal, NotFound) as error:
        fetched.problems.append(str(error))
        return fetched
    faults = list(record_faults(workload, shard, fetched.record))
    blobs = []
    for data in fetched.record.objects:
        try:
            blob = store.get(data.key)
        except NotFound:
            faults.append(f"{data.key} (shard {shard.index}): missing, though committed")
            continue
        faults += object_faults(shard, data, blob)
        if holds_images(data.key):
            blobs.append(blob)
    fetched.problems += faults
    fetched.blobs = None if faults else blobs
    return fetched
