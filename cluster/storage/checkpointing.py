"""Keeping a job's checkpoints up with its commits: while it runs, when resumed, at its end."""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from cluster.errors import ClusterError, Fatal, NotFound
from cluster.storage.backoff import Backoff
from cluster.storage.commit import read_records
from cluster.storage.commits import CHECKPOINT_SHARDS, Commits, has_checkpoints
from cluster.storage.object_store import ObjectStore
from cluster.types import CheckpointRef, CommitRecord

logger = logging.getLogger(__name__)

FRESH = 500
"""So many commits beside a range's checkpoint have it written anew: what a resume, or who asks how
far the job is, has to read one by one. A range is written twenty times as it fills: 10 MB in all
and 0.1 ms of CPU a shard, against as many requests of 1 ms and more for each who asks."""


def catch_up(
    commits: Commits,
    *,
    every: int = CHECKPOINT_SHARDS,
    least: int = 1,
    backoff: Backoff | None = None,
) -> Commits:
    """Checkpoint each range with ``least`` or more commits beside its checkpoint; the commits as
    they are then. What columns cannot hold stays beside."""
    from cluster.storage.commit_table import Unfit

    refs = {ref.first: ref for ref in commits.checkpoints}
    lacking: dict[tuple[int, int], list[int]] = defaultdict(list)
    for shard in commits.beside:
        lacking[range_of(commits.checkpoints, shard, every, commits.total)].append(shard)
    beside: list[int] = []
    for (first, stop), shards in sorted(lacking.items()):
        if len(shards) < least:
            beside += shards
            continue
        try:
            refs[first] = _written(
                commits.store,
                commits.job_id,
                (first, stop),
                list(commits.read(shards)),
                refs.get(first),
                backoff,
            )
        except Unfit as error:
            logger.warning("shards %s to %s get no checkpoint: %s", first, stop - 1, error)
            beside += shards
    checkpoints = tuple(refs[first] for first in sorted(refs))
    return replace(commits, checkpoints=checkpoints, beside=beside)


class Checkpointer:
    """Writes the checkpoints of a job while it runs, on a thread of its own.

    A failure is logged and costs the cache only: the next run, or the end, reads the commits.
    """

    def __init__(
        self,
        store: ObjectStore,
        job_id: str,
        shards: int,
        *,
        every: int = CHECKPOINT_SHARDS,
        fresh: int = FRESH,
        backoff: Backoff | None = None,
    ) -> None:
        self._store, self._job_id, self._backoff = store, job_id, backoff
        self._total, self._every, self._fresh = shards, every, fresh
        self._ranges: dict[int, _Open] = {}
        self._refs: tuple[CheckpointRef, ...] = ()
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, commits: Commits) -> Commits:
        """Take up a job with these commits, many of which may lack a checkpoint; the commits with
        those written. Blocks on the store."""
        if not has_checkpoints(self._total, self._every):
            return commits
        commits = catch_up(commits, every=self._every, least=self._fresh, backoff=self._backoff)
        self._refs = commits.checkpoints
        for record in commits.read(commits.beside):
            self.add(record)
        return commits

    def add(self, record: CommitRecord) -> None:
        """A shard was committed. Does not block."""
        if not has_checkpoints(self._total, self._every):
            return
        first, stop = range_of(self._refs, record.shard, self._every, self._total)
        part = self._ranges.get(first)
        if part is None:
            ref = next((ref for ref in self._refs if ref.first == first), None)
            part = self._ranges[first] = _Open(first, stop, ref, 0 if ref is None else ref.count)
        part.waiting.append(record)
        part.count += 1
        whole = part.count >= stop - first
        if whole or len(part.waiting) >= self._fresh:
            records, part.waiting = part.waiting, []
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoints")
            self._pool.submit(self._write, part, records)
        if whole:
            del self._ranges[first]

    def settle(self) -> None:
        """Wait for what is being written."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def _write(self, part: _Open, records: list[CommitRecord]) -> None:
        from cluster.storage.commit_table import Unfit

        try:
            ends = (part.first, part.stop)
            part.ref = _written(self._store, self._job_id, ends, records, part.ref, self._backoff)
        except (ClusterError, Unfit) as error:
            name = f"job {self._job_id}: shards {part.first} to {part.stop - 1}"
            logger.warning("%s: no checkpoint for now: %s", name, error)


@dataclass
class _Open:
    """A range that is not whole yet: its checkpoint so far, how many of its commits are known, and
    those that are to be written."""

    first: int
    stop: int
    ref: CheckpointRef | None
    count: int
    waiting: list[CommitRecord] = field(default_factory=list)


def range_of(
    checkpoints: Sequence[CheckpointRef], shard: int, every: int, total: int | None
) -> tuple[int, int]:
    """(first, stop) of the range that the shard's commit belongs in: a checkpoint's, or one of
    ``every`` shards that begins at a multiple of it and overlaps none."""
    at = bisect_right(checkpoints, shard, key=lambda ref: ref.first)
    before = checkpoints[at - 1] if at else None
    if before is not None and shard < before.stop:
        return before.first, before.stop
    first = shard // every * every
    ends = [first + every, *(ref.first for ref in checkpoints[at : at + 1])]
    if total is not None and shard < total:
        ends.append(total)
    return max(first, before.stop if before else 0), min(ends)


def _written(
    store: ObjectStore,
    job_id: str,
    of: tuple[int, int],
    records: list[CommitRecord],
    earlier: CheckpointRef | None,
    backoff: Backoff | None,
) -> CheckpointRef:
    from cluster.storage.checkpoint import write_checkpoint

    try:
        return write_checkpoint(store, job_id, *of, records, extends=earlier, backoff=backoff)
    except (Fatal, NotFound):  # the earlier one is damaged, or gone
        if earlier is None:
            raise
        shards = [shard for first, stop in earlier.shards for shard in range(first, stop)]
        records = [*read_records(store, job_id, shards), *records]
        return write_checkpoint(store, job_id, *of, records, backoff=backoff)
