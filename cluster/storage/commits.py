"""The commits of a job as they stand: checkpoints, and the records that no checkpoint holds.

However large the job, in memory are the commits of one checkpoint's range at a time. Imports no
Arrow until a checkpoint is read.
"""

from __future__ import annotations

import heapq
import logging
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from cluster.energy import sum_energy
from cluster.errors import Fatal, NotFound
from cluster.scheduler.ranges import Ranges, runs
from cluster.storage.checkpoint_header import read_headers
from cluster.storage.commit import read_records
from cluster.storage.layout import JobLayout, shard_of_commit
from cluster.storage.object_store import ObjectStore
from cluster.types import CheckpointRef, CommitRecord, Energy, Manifest

if TYPE_CHECKING:
    import pyarrow as pa

logger = logging.getLogger(__name__)

CHECKPOINT_SHARDS = 10_000
"""Shards of a checkpoint's range: about 1 MB. A million shards are then 100 small objects, and a
listing of what one range lacks is ten requests at most. A job of no more shards has none."""


A_LOOK = 32
"""So many names a directory lists in the time in which one of its files is looked for: warm, a name
takes 0.8 us and a look 25."""


def has_checkpoints(shards: int, every: int = CHECKPOINT_SHARDS) -> bool:
    """Whether a job of so many shards is so large that its commits are kept in checkpoints too.

    every: shards of a checkpoint's range.
    """
    return shards > every


@dataclass(frozen=True)
class Piece:
    """Commits of consecutive shards: a checkpoint's and, within its range, those beside it; or a
    run of at most ``CHECKPOINT_SHARDS`` that are in no checkpoint's range."""

    checkpoint: CheckpointRef | None
    beside: Sequence[int]


@dataclass(frozen=True)
class Commits:
    """A job's commits at one moment; iterates over the records by shard.

    beside: the shards whose commits no checkpoint holds, ascending. total: the shards of the job,
    where they are known. faults: a line for each checkpoint that is not good, and stands aside.
    """

    store: ObjectStore
    job_id: str
    checkpoints: tuple[CheckpointRef, ...] = ()
    beside: Sequence[int] = ()
    total: int | None = None
    faults: tuple[str, ...] = ()
    _known: dict[int, CommitRecord] = field(default_factory=dict, repr=False, compare=False)

    def __len__(self) -> int:
        return sum(ref.count for ref in self.checkpoints) + len(self.beside)

    def __iter__(self) -> Iterator[CommitRecord]:
        for piece in self.pieces():
            yield from self._records(piece)

    @cached_property
    def shards(self) -> Ranges:
        """The shards that are committed."""
        found = Ranges(pair for ref in self.checkpoints for pair in ref.shards)
        for pair in runs(self.beside):
            found.add(*pair)
        return found

    @property
    def images(self) -> int:
        """Images committed."""
        return self._totals[0]

    @property
    def energy(self) -> Energy:
        """Of all commits together; ``ZERO_ENERGY`` of none."""
        return self._totals[1]

    def pieces(self) -> Iterator[Piece]:
        """All commits, by shard."""
        at = 0
        for ref in self.checkpoints:
            low, high = bisect_left(self.beside, ref.first), bisect_left(self.beside, ref.stop)
            yield from self._without(at, low)
            yield Piece(ref, self.beside[low:high])
            at = high
        yield from self._without(at, len(self.beside))

    def tables(self) -> Iterator[pa.Table]:
        """All commits by shard, as ``TABLE_SCHEMA``, a piece at a time. Raises Unfit for records
        that columns cannot hold."""
        from cluster.storage.commit_table import merged, table_of

        for piece in self.pieces():
            tables = [table_of(self.read(piece.beside))] if piece.beside else []
            if piece.checkpoint is not None:
                tables.append(self._table(piece.checkpoint))
            yield merged(tables)

    def objects(self) -> Iterator[tuple[str, int]]:
        """(key, size in bytes) of every object that a commit vouches for, by shard and key."""
        for piece in self.pieces():
            if piece.checkpoint is None or piece.beside:
                for record in self._records(piece):
                    yield from sorted((data.key, data.size_bytes) for data in record.objects)
            else:
                from cluster.storage.commit_table import objects_of

                yield from objects_of(self._table(piece.checkpoint))

    def read(self, shards: Sequence[int]) -> Iterator[CommitRecord]:
        """The records of shards beside the checkpoints. Few are kept; many are read each time.

        Raises Fatal if one is damaged, NotFound if one is gone.
        """
        if len(self.beside) > CHECKPOINT_SHARDS and not self._known:
            yield from read_records(self.store, self.job_id, shards)
            return
        lacking = [shard for shard in shards if shard not in self._known]
        for record in read_records(self.store, self.job_id, lacking):
            self._known[record.shard] = record
        yield from (self._known[shard] for shard in shards)

    @cached_property
    def _totals(self) -> tuple[int, Energy]:
        images = sum(ref.images for ref in self.checkpoints)
        energy = sum_energy(ref.energy for ref in self.checkpoints)
        for piece in self._without(0, len(self.beside)):
            records = list(self.read(piece.beside))
            images += sum(record.rows for record in records)
            energy = sum_energy([energy, *(record.energy for record in records)])
        return images, energy

    def _without(self, low: int, high: int) -> Iterator[Piece]:
        for at in range(low, high, CHECKPOINT_SHARDS):
            yield Piece(None, self.beside[at : min(at + CHECKPOINT_SHARDS, high)])

    def _records(self, piece: Piece) -> Iterator[CommitRecord]:
        beside = self.read(piece.beside)
        if piece.checkpoint is None:
            return beside
        from cluster.storage.commit_table import records_of

        held = records_of(self._table(piece.checkpoint))
        return heapq.merge(held, beside, key=lambda record: record.shard)

    def _table(self, ref: CheckpointRef) -> pa.Table:
        from cluster.storage.checkpoint import read_checkpoint
        from cluster.storage.commit_table import table_of

        try:
            return read_checkpoint(self.store, ref)
        except (Fatal, NotFound) as error:
            logger.warning("%s; its commits are read one by one", error)
        shards = [shard for first, stop in ref.shards for shard in range(first, stop)]
        return table_of(read_records(self.store, self.job_id, shards))


def open_commits(
    store: ObjectStore,
    job_id: str,
    *,
    shards: int | None = None,
    every: int = CHECKPOINT_SHARDS,
) -> Commits:
    """The job's commits as they are now. Lists checkpoints, and keys beside them; reads no record.

    shards: how many the job has, if that is known: one with no more than ``every`` has no
    checkpoints to be looked for.
    """
    checkpoints: tuple[CheckpointRef, ...] = ()
    faults: list[str] = []
    # Checkpoints first: the commits of one that is replaced meanwhile are then listed.
    if shards is None or has_checkpoints(shards, every):
        keys = [info.key for info in store.list(JobLayout(job_id).checkpoints)]
        if keys:
            checkpoints, faults = read_headers(store, job_id, keys)
    held = Ranges(pair for ref in checkpoints for pair in ref.shards)
    beside: list[int] = []
    first = 0
    # Of a range that is not whole, what is held from its beginning need not be listed either.
    begun = (ref.shards[0] for ref in checkpoints if ref.shards[0][0] == ref.first)
    for start, stop in Ranges(begun):
        if first < start:
            beside += _beside(store, job_id, held, first, start)
        first = stop
    if shards is None or first < shards:
        beside += _beside(store, job_id, held, first, shards, last=True)
    return Commits(store, job_id, checkpoints, beside, shards, tuple(faults))


def commits_of(store: ObjectStore, manifest: Manifest) -> Commits:
    """The commits that a manifest names."""
    known = {record.shard: record for record in manifest.commits}
    return Commits(
        store,
        manifest.job_id,
        manifest.checkpoints,
        sorted(known),
        manifest.shards,
        _known=known,
    )


def _beside(
    store: ObjectStore,
    job_id: str,
    held: Ranges,
    first: int,
    stop: int | None,
    *,
    last: bool = False,
) -> Iterator[int]:
    """The committed shards from first to stop - 1 that are not held, ascending. Lists keys, or
    looks for those that may be there, where that takes less. last: no shards follow."""
    if stop is not None and store.config.lists_whole:
        lacking = held.missing(first, stop)
        if A_LOOK * sum(end - begin for begin, end in lacking) <= held.size:
            shards = (shard for pair in lacking for shard in range(*pair))
            return (shard for shard in shards if _is_there(store, JobLayout(job_id).commit(shard)))
    listed = _listed(store, job_id, first, None if last else stop)
    return (shard for shard in listed if shard not in held)


def _is_there(store: ObjectStore, key: str) -> bool:
    try:
        with store.open_reader(key):
            return True
    except NotFound:
        return False


def _listed(store: ObjectStore, job_id: str, first: int, stop: int | None) -> Iterator[int]:
    """The committed shards from first to stop - 1, ascending, listing no others' keys."""
    layout = JobLayout(job_id)
    after = layout.commit(first - 1) if first else ""
    for info in store.list(layout.commits, after=after):
        shard = shard_of_commit(info.key)
        if shard is not None and stop is not None and shard >= stop:
            return
        if shard is not None:
            yield shard
