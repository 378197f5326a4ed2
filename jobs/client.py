"""The Python client: ``jobs.Client(server=…, token=…)`` or ``jobs.Client(store=…)``.

The same verbs over HTTP and over a store, with the models that ``--json`` and HTTP have too.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.clock import monotonic_s
from cluster.errors import UserError
from cluster.storage.image_rows import decode_image
from cluster.storage.open import open_store
from jobs.service.api import JobService
from jobs.service.core import StoreService
from jobs.service.files import JobFiles, StoreFiles
from jobs.service.prepare import user_here
from jobs.service.remote import HttpService
from jobs.service.views import (
    PAGE_SIZE,
    EventView,
    JobFilter,
    JobLine,
    JobPage,
    JobView,
    Quote,
    Results,
)
from jobs.spec import JobSpec, parse_spec

_COLUMNS = ["image", "image_id", "index", "class_id", "label"]
BATCH = 256  # images
SETTLE_S = 5.0  # as jobs.server.options.HttpOptions.settle_s


@dataclass(frozen=True)
class ImageBatch:
    """Decoded images of one shard, in order of their index.

    images: (n, height, width, 3) uint8, RGB. index, class_id: (n,) int64. labels: None where a
    class has none.
    """

    images: NDArray[np.uint8]
    index: NDArray[np.int64]
    class_id: NDArray[np.int64]
    labels: tuple[str | None, ...]
    image_ids: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.index)


class Client:
    """Submits, watches and steers jobs. Thread-safe. Use it in a ``with`` block, or ``close`` it.

    server, token: of ``un0 serve --http``; by default UN0_SERVER and UN0_TOKEN. store: a store's
    address in place of a server, which this process can read and write.
    poll_s: between two looks at a job, where it must be looked at.
    """

    def __init__(
        self,
        *,
        server: str | None = None,
        token: str | None = None,
        store: str | None = None,
        endpoint_url: str | None = None,
        poll_s: float = 1.0,
    ) -> None:
        if store is not None and (server is not None or token is not None):
            raise UserError(f"server and store {store!r} are both given; give one of them")
        self._poll_s = poll_s
        self._service: JobService
        self._files: JobFiles
        if store is not None:
            opened = open_store(store, endpoint_url=endpoint_url)
            self._service, self._files = StoreService(opened), StoreFiles(opened)
            return
        server = server or os.environ.get("UN0_SERVER")
        if not server:
            raise UserError("no server: give server='http://…', set UN0_SERVER, or give store='…'")
        self._service = self._files = HttpService(server, token or os.environ.get("UN0_TOKEN"))

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        if isinstance(self._service, HttpService):
            self._service.close()

    def submit(
        self, spec: JobSpec | None = None, *, idempotency_key: str | None = None, **fields: Any
    ) -> JobView:
        """Submit a job: a spec, or its fields (``count=1000, model=…``). With the same key it is
        the same job."""
        wanted = _spec(spec, fields)
        by = wanted.owner or user_here()
        return self._service.submit(wanted, by=by, idempotency_key=idempotency_key)

    def quote(self, spec: JobSpec | None = None, **fields: Any) -> Quote:
        """What the job would take. Writes nothing."""
        return self._service.quote(_spec(spec, fields))

    def status(self, job: str | JobView) -> JobView:
        """The job now. Raises NoSuchJob."""
        return self._service.status(_id(job))

    def cancel(self, job: str | JobView, reason: str = "") -> JobView:
        """End the job for good; what is committed stays. Raises Conflict if it has ended."""
        return self._service.cancel(_id(job), by=user_here(), reason=reason)

    def pause(self, job: str | JobView, reason: str = "") -> JobView:
        """Stop running it, until ``resume``. Raises Conflict."""
        return self._service.pause(_id(job), by=user_here(), reason=reason)

    def resume(self, job: str | JobView, reason: str = "") -> JobView:
        """Run it again. Raises Conflict."""
        return self._service.resume(_id(job), by=user_here(), reason=reason)

    def results(self, job: str | JobView) -> Results:
        """Where its images are, in any state."""
        return self._service.results(_id(job))

    def uris(self, job: str | JobView) -> Iterator[str]:
        """The addresses of its committed Parquet files."""
        yield from self._service.uris(_id(job))

    def page(
        self, wanted: JobFilter | None = None, page_size: int = PAGE_SIZE, page_token: str = ""
    ) -> JobPage:
        """A page of the jobs, the newest first."""
        return self._service.jobs(wanted or JobFilter(), page_size, page_token)

    def jobs(self, **wanted: Any) -> Iterator[JobLine]:
        """The jobs, the newest first, page by page. wanted: fields of JobFilter."""
        asked, token = JobFilter(**wanted), ""
        while True:
            page = self._service.jobs(asked, PAGE_SIZE, token)
            yield from page.jobs
            token = page.next_page_token
            if not token:
                return

    def wait(self, job: str | JobView, timeout_s: float | None = None) -> JobView:
        """The job once it has ended, in whichever state; TimeoutError if that takes longer. A
        paused job has not ended."""
        job_id = _id(job)
        until_s = None if timeout_s is None else monotonic_s() + timeout_s
        while not (view := self._service.status(job_id)).state.is_terminal:
            if until_s is not None and monotonic_s() >= until_s:
                raise TimeoutError(f"job {job_id} is {view.state} after {timeout_s} s")
            self._sleep(until_s)
        return view

    def events(
        self, job: str | JobView, after: int = 0, *, follow: bool = True
    ) -> Iterator[EventView]:
        """Its history after the event of this id, each event once and in order; until the job has
        ended, or without ``follow`` what there is."""
        job_id = _id(job)
        if not follow:
            yield from self._service.events(job_id, after)
        elif isinstance(self._service, HttpService):
            for each in self._service.follow(job_id, after):
                if isinstance(each, EventView):
                    yield each
        else:
            yield from self._follow(job_id, after)

    def images(
        self, job: str | JobView, *, follow: bool = True, batch: int = BATCH
    ) -> Iterator[ImageBatch]:
        """Its images as they are committed, at most ``batch`` at once: every image once, shards in
        the order in which they come. Until the job has ended, or without ``follow`` what there is.
        """
        job_id = _id(job)
        seen: set[int] = set()  # beyond ``low``
        low = -1  # all shards up to it are seen
        while True:
            ended = not follow or self._service.status(job_id).state.is_terminal
            after = low
            while files := self._files.page(job_id, after):
                for shard in (file.shard for file in files if file.shard not in seen):
                    yield from self._batches(job_id, shard, batch)
                    seen.add(shard)
                after = files[-1].shard
            while low + 1 in seen:
                low += 1
                seen.remove(low)
            if ended:
                return
            self._sleep()

    def _follow(self, job_id: str, after: int) -> Iterator[EventView]:
        """As a server does: until the event that says that the job has ended, which comes a moment
        after the end."""
        ended_s = math.inf
        while True:
            view = self._service.status(job_id)
            last = self._service.events(job_id, max(0, view.last_event - 1))
            for event in self._service.events(job_id, after):
                yield event
                after = event.id
            if view.state.is_terminal:
                ended_s = min(ended_s, monotonic_s())
                told = any(event.state == view.state for event in last)
                if told or monotonic_s() - ended_s >= SETTLE_S:
                    return
            self._sleep()

    def _batches(self, job_id: str, shard: int, batch: int) -> Iterator[ImageBatch]:
        with self._files.reader(job_id, shard) as source, pq.ParquetFile(source) as file:
            for rows in file.iter_batches(batch, columns=_COLUMNS):
                yield _decoded(rows)

    def _sleep(self, until_s: float | None = None) -> None:
        left_s = self._poll_s if until_s is None else until_s - monotonic_s()
        time.sleep(max(0.0, min(self._poll_s, left_s)))


def _decoded(rows: pa.RecordBatch) -> ImageBatch:
    columns = rows.to_pydict()
    pictures = [np.asarray(decode_image({"image": image})) for image in columns["image"]]
    return ImageBatch(
        np.stack(pictures),
        np.asarray(columns["index"], np.int64),
        np.asarray(columns["class_id"], np.int64),
        tuple(columns["label"]),
        tuple(columns["image_id"]),
    )


def _spec(spec: JobSpec | None, fields: dict[str, Any]) -> JobSpec:
    if spec is None:
        return parse_spec(fields, "job")
    if fields:
        raise UserError(f"a spec and {', '.join(fields)} are both given; put them in the spec")
    return spec


def _id(job: str | JobView) -> str:
    return job if isinstance(job, str) else job.job_id
