"""From a shard's encoded images to its commit: the last two stages."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cluster.clock import monotonic_s, utc_now
from cluster.errors import Retryable
from cluster.hardware.identify import host_name
from cluster.pipeline.encoded import Encoded
from cluster.pipeline.giving_up import Abandoned, GivenUp
from cluster.pipeline.parquet import shard_parquet
from cluster.storage.backoff import Backoff
from cluster.storage.chunks import Chunks
from cluster.storage.commit import Outcome, commit
from cluster.storage.job_rows import JobRows
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import CommitRecord, DataObject, Energy, Shard, Workload

T = TypeVar("T")
PATIENCE_S = 60.0  # how long images in hand wait for a store that is away
RETRY_S = 1.0
ONCE = Backoff(attempts=1)


@dataclass(frozen=True)
class Attempt:
    """One finished attempt at a shard. ``record`` is committed only if ``outcome`` is not None."""

    record: CommitRecord
    outcome: Outcome | None


@dataclass(frozen=True)
class Generated:
    """A shard that its device has made. generate_s: from its first tile to its last."""

    shard: Shard
    attempt_id: str
    rows: JobRows
    energy: Energy
    generate_s: float
    hardware: str


class Publisher:
    """Packs the shards of one workload into files, and commits them.

    commit_here: write the commit record; False leaves that to the caller (single-writer stores).
    """

    def __init__(
        self, workload: Workload, store: ObjectStore, given_up: GivenUp, *, commit_here: bool
    ) -> None:
        self._workload = workload
        self._store = store
        self._given_up = given_up
        self._commit_here = commit_here
        self.trouble = ""  # what keeps the store from taking images, while something does

    def pack(self, made: Generated, parts: Sequence[Encoded]) -> Chunks:
        """The shard's file, its digest computed."""
        chunks = shard_parquet(
            self._workload,
            made.shard,
            made.rows.class_ids,
            parts,
            made.energy,
            made.hardware,
            rows=made.rows,
        )
        chunks.sha256()
        return chunks

    def publish(self, made: Generated, data: Chunks) -> Attempt:
        """Write the shard's file and its commit record.

        Raises Abandoned, and what the store raises: Retryable once it has been away for PATIENCE_S.
        """
        shard = made.shard
        key = JobLayout(shard.job_id).images(shard.index, made.attempt_id)
        self._patiently(made.attempt_id, lambda: self._store.put(key, data))
        record = CommitRecord(
            job_id=shard.job_id,
            shard=shard.index,
            start=shard.start,
            stop=shard.stop,
            attempt_id=made.attempt_id,
            token=uuid.uuid4().hex,
            objects=(
                DataObject(
                    key=key, size_bytes=data.size_bytes, sha256=data.sha256(), rows=shard.rows
                ),
            ),
            rows=shard.rows,
            energy=made.energy,
            model_rev=self._workload.model_rev,
            hardware=made.hardware,
            host_name=host_name(),
            generate_s=made.generate_s,
            committed_at=utc_now(),
        )
        if not self._commit_here:
            return Attempt(record, None)
        won = self._patiently(made.attempt_id, lambda: commit(self._store, record, backoff=ONCE))
        return Attempt(record, won)

    def _patiently(self, attempt_id: str, act: Callable[[], T]) -> T:
        """Do it, and again while the store is away: the images in hand cost joules to remake."""
        until_s = monotonic_s() + PATIENCE_S
        while True:
            try:
                result = act()
            except Retryable as error:
                self.trouble = str(error)
                if monotonic_s() > until_s:
                    raise
                if self._given_up.wait(attempt_id, RETRY_S):
                    raise Abandoned from error
            else:
                self.trouble = ""
                return result
