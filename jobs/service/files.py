"""The committed files of a job: which there are, and their bytes."""

from __future__ import annotations

from contextlib import AbstractContextManager
from itertools import islice
from typing import BinaryIO, Protocol

from cluster.storage.commit import read_record, read_records
from cluster.storage.layout import SERVERS, JobLayout, holds_images, shard_of_commit
from cluster.storage.object_store import ObjectStore
from cluster.types import CommitRecord
from jobs.service.views import Results, View

MOST_FILES = 1000  # on a page


class ResultFile(View):
    """A committed Parquet file: images start..stop-1 of the job. sha256: of its bytes."""

    shard: int
    start: int
    stop: int
    size_bytes: int
    sha256: str


class ResultsPage(Results):
    """Where a job's images are, and some of its files, by shard. next_page_token: empty on the
    last page; of a job that still runs, more may be committed before it later."""

    files: tuple[ResultFile, ...] = ()
    next_page_token: str = ""


class JobFiles(Protocol):
    """The files of the jobs of a service."""

    def page(self, job_id: str, after: int = -1, limit: int = MOST_FILES) -> list[ResultFile]:
        """Up to so many files of shards greater than ``after``, by shard."""
        ...

    def reader(self, job_id: str, shard: int) -> AbstractContextManager[BinaryIO]:
        """A seekable reader of the shard's file. Raises NotFound if it is not committed."""
        ...


class StoreFiles:
    """The files in a store that this process can read."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def page(self, job_id: str, after: int = -1, limit: int = MOST_FILES) -> list[ResultFile]:
        layout = JobLayout(job_id)
        start = layout.commit(after) if after >= 0 else ""
        found = (shard_of_commit(i.key) for i in self._store.list(layout.commits, after=start))
        shards = list(islice((shard for shard in found if shard is not None), limit))
        return [_file(record) for record in read_records(self._store, job_id, shards)]

    def reader(self, job_id: str, shard: int) -> AbstractContextManager[BinaryIO]:
        return self.open(job_id, shard)[1]

    def open(self, job_id: str, shard: int) -> tuple[ResultFile, AbstractContextManager[BinaryIO]]:
        """The same, with what is known of the file."""
        record = read_record(self._store, job_id, shard)
        key = next(data.key for data in record.objects if holds_images(data.key))
        return _file(record), self._store.open_reader(key)

    def check(self) -> None:
        """Ask the store for something small. Raises ClusterError if it does not answer."""
        next(iter(self._store.list(SERVERS)), None)


def _file(record: CommitRecord) -> ResultFile:
    data = next(data for data in record.objects if holds_images(data.key))
    return ResultFile(
        shard=record.shard,
        start=record.start,
        stop=record.stop,
        size_bytes=data.size_bytes,
        sha256=data.sha256,
    )
