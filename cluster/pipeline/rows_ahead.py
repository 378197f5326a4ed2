"""Rows of shards, the next one's read from the store while the device makes this one."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from cluster.storage.job_rows import JobRows, rows_of
from cluster.storage.object_store import ObjectStore
from cluster.types import Shard, Workload


class RowsAhead:
    """For one job on one device. Not thread-safe: a device makes one shard at a time."""

    def __init__(self, store: ObjectStore, workload: Workload) -> None:
        self._store, self._workload = store, workload
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="rows")  # no thread yet
        self._ahead: tuple[int, Future[JobRows]] | None = None

    def take(self, shard: Shard) -> JobRows:
        """The shard's rows. Assignments are runs of shards, so that the one after it is most likely
        the next. Raises Fatal, and what the store raises."""
        if self._workload.inputs is None:
            return self._read(shard.index)
        ahead, self._ahead = self._ahead, None
        known = ahead is not None and ahead[0] == shard.index and ahead[1].exception() is None
        rows = ahead[1].result() if ahead is not None and known else self._read(shard.index)
        if (after := shard.index + 1) < self._workload.num_shards:
            self._ahead = (after, self._reader.submit(self._read, after))
        return rows

    def _read(self, index: int) -> JobRows:
        shard = self._workload.shard(index)
        return rows_of(self._store, self._workload, shard.start, shard.stop)
