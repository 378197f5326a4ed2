"""Run shards with a sampler, a meter and a store. Free of Ray.

One runner serves one job on one replica. Its device makes one shard at a time; encoding and
uploading the last shard overlap with generating the next, so that the device never waits for
storage.
"""

from __future__ import annotations

import hashlib
import math
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from cluster.clock import monotonic_s, utc_now
from cluster.errors import Retryable
from cluster.hardware.identify import host_name
from cluster.ledger.usage import Work
from cluster.pipeline.encode import encode_images
from cluster.pipeline.parquet import shard_parquet
from cluster.storage.backoff import Backoff
from cluster.storage.commit import Outcome, commit
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import CommitRecord, DataObject, Energy, Shard, Workload

Images = NDArray[np.uint8]
T = TypeVar("T")
PATIENCE_S = 60.0  # how long images in hand wait for a store that is away
RETRY_S = 1.0
ONCE = Backoff(attempts=1)
UNDER_WAY = 2  # shards at once: one generates while another is encoded and uploaded


class Sampler(Protocol):
    """What the runner needs of ``un0.Sampler``."""

    def generate_tiles(
        self, seed: int, start: int, class_ids: NDArray[np.int64]
    ) -> Iterator[tuple[int, Images]]:
        """Consecutive pieces of the images start.., as (offset from start, uint8 (B, H, W, 3))."""
        ...


class Meter(Protocol):
    """What the runner needs of a meter. hardware: name of the metered device."""

    @property
    def hardware(self) -> str: ...

    def begin(self, attempt_id: str, work: Work) -> None:
        """Report that the device begins to work on the attempt."""
        ...

    def end(self, attempt_id: str, images: int | None = None) -> Energy:
        """Report that it has ended with so many images; returns its energy. Never raises."""
        ...


class Abandoned(Exception):
    """The attempt was given up on request; it commits nothing."""


@dataclass
class GenerateClock:
    """How long the device generated, and since when. Seconds, monotonic."""

    busy_s: float = 0.0
    first_s: float | None = None

    def window_s(self) -> float:
        """Seconds since the device's first shard began."""
        return 0.0 if self.first_s is None else monotonic_s() - self.first_s

    @contextmanager
    def running(self) -> Iterator[None]:
        start_s = monotonic_s()
        if self.first_s is None:
            self.first_s = start_s
        try:
            yield
        finally:
            self.busy_s += monotonic_s() - start_s


class Lane:
    """What the runners of one device share: the lock on the device, encoder threads, and those
    that publish.

    encoders: threads that encode images while the device generates.
    """

    def __init__(self, encoders: int = 1) -> None:
        self.turn = threading.Lock()
        self.pool = ThreadPoolExecutor(encoders, thread_name_prefix="encode")
        self.publishers = ThreadPoolExecutor(UNDER_WAY, thread_name_prefix="publish")
        self.room = threading.Semaphore(UNDER_WAY)  # for shards that are not published yet

    def close(self) -> None:
        """Stop the threads."""
        self.pool.shutdown(cancel_futures=True)
        self.publishers.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Attempt:
    """One finished attempt at a shard. ``record`` is committed only if ``outcome`` is not None."""

    record: CommitRecord
    outcome: Outcome | None


class ShardRunner:
    """Turns shards of one workload into committed Parquet.

    commit_here: write the commit record; False leaves that to the caller (single-writer stores).
    lane: shared with the device's other runners; None makes one.
    """

    def __init__(
        self,
        workload: Workload,
        sampler: Sampler,
        meter: Meter,
        store: ObjectStore,
        *,
        commit_here: bool = True,
        lane: Lane | None = None,
    ) -> None:
        self._workload = workload
        self._sampler = sampler
        self._meter = meter
        self._store = store
        self._commit_here = commit_here
        self._lane = lane or Lane()
        self._given_up: dict[str, float] = {}  # attempts, and by when they may still be done
        self._all_by_s = math.inf
        self._asked = threading.Condition()  # to give something up
        self.clock = GenerateClock()
        self.trouble = ""  # what keeps the store from taking images, while something does

    def run(
        self,
        shard: Shard,
        attempt_id: str,
        on_images: Callable[[int], None] = lambda _: None,
    ) -> Attempt:
        """Make one attempt at the shard: ``start``, and what comes of it."""
        return self.start(shard, attempt_id, on_images).result()

    def start(
        self,
        shard: Shard,
        attempt_id: str,
        on_images: Callable[[int], None] = lambda _: None,
    ) -> Future[Attempt]:
        """Generate the shard, and have it published meanwhile: returns once the device is free.
        ``on_images`` is called every few images.

        attempt_id: unique to this attempt; its energy is kept, and its objects lie, under it.
        Raises Abandoned after ``abandon``, and what the sampler raises; the future, what the
        encoder or the store raise.
        """
        class_ids = self._workload.classes_of(shard.start, shard.stop)
        self._lane.room.acquire()
        try:
            with self._lane.turn:
                made = self._generate(shard, attempt_id, class_ids, on_images)
            attempt = self._lane.publishers.submit(
                self._encoded, shard, attempt_id, class_ids, *made
            )
        except BaseException:
            self._lane.room.release()
            raise
        attempt.add_done_callback(lambda _: self._lane.room.release())
        return attempt

    def _encoded(
        self,
        shard: Shard,
        attempt_id: str,
        class_ids: NDArray[np.int64],
        encoding: list[Future[list[bytes]]],
        energy: Energy,
        generate_s: float,
    ) -> Attempt:
        encoded = [image for part in encoding for image in part.result()]
        data = shard_parquet(
            self._workload, shard, class_ids, encoded, energy, self._meter.hardware
        )
        return self._publish(shard, attempt_id, data, energy, generate_s)

    def abandon(self, attempt_ids: Collection[str] | None = None, within_s: float = 0.0) -> None:
        """Give up what of these attempts, or of all, is not generated yet, at the next tile; but
        not what at its pace so far will be within so many seconds. Attempts past that still
        commit, unless the store is away."""
        by_s = monotonic_s() + within_s
        with self._asked:
            if attempt_ids is None:
                self._all_by_s = by_s
            else:
                self._given_up.update(dict.fromkeys(attempt_ids, by_s))
            self._asked.notify_all()

    def _abandoned(self, attempt_id: str, needs_s: float = 0.0) -> bool:
        """Whether the attempt, which needs so much longer, is given up."""
        by_s = min(self._all_by_s, self._given_up.get(attempt_id, math.inf))
        return by_s < math.inf and monotonic_s() + needs_s >= by_s

    def _generate(
        self,
        shard: Shard,
        attempt_id: str,
        class_ids: NDArray[np.int64],
        on_images: Callable[[int], None],
    ) -> tuple[list[Future[list[bytes]]], Energy, float]:
        """The encoders' work, the energy and the seconds of generating the shard."""
        if self._abandoned(attempt_id, math.inf):
            raise Abandoned
        encoding: list[Future[list[bytes]]] = []
        made = 0
        started_s = monotonic_s()
        self._meter.begin(attempt_id, self._work(shard))
        try:
            with self.clock.running():
                tiles = self._sampler.generate_tiles(self._workload.seed, shard.start, class_ids)
                for _, images in tiles:
                    submit = self._lane.pool.submit
                    encoding.append(submit(encode_images, images, self._workload.encoding))
                    made += len(images)
                    on_images(len(images))
                    left = (shard.rows - made) / made
                    if self._abandoned(attempt_id, left * (monotonic_s() - started_s)):
                        raise Abandoned
                generate_s = monotonic_s() - started_s
        finally:
            energy = self._meter.end(attempt_id, made)
        return encoding, energy, generate_s

    def _work(self, shard: Shard) -> Work:
        workload = self._workload
        return Work(
            job_id=workload.job_id,
            shard=shard.index,
            model_rev=workload.model_rev,
            width=workload.width,
            height=workload.height,
            precision=workload.precision,
        )

    def _publish(
        self, shard: Shard, attempt_id: str, data: bytes, energy: Energy, generate_s: float
    ) -> Attempt:
        key = JobLayout(shard.job_id).images(shard.index, attempt_id)
        self._patiently(attempt_id, lambda: self._store.put(key, data))
        record = CommitRecord(
            job_id=shard.job_id,
            shard=shard.index,
            start=shard.start,
            stop=shard.stop,
            attempt_id=attempt_id,
            token=uuid.uuid4().hex,
            objects=(
                DataObject(
                    key=key,
                    size_bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    rows=shard.rows,
                ),
            ),
            rows=shard.rows,
            energy=energy,
            model_rev=self._workload.model_rev,
            hardware=self._meter.hardware,
            host_name=host_name(),
            generate_s=generate_s,
            committed_at=utc_now(),
        )
        if not self._commit_here:
            return Attempt(record, None)
        won = self._patiently(attempt_id, lambda: commit(self._store, record, backoff=ONCE))
        return Attempt(record, won)

    def _patiently(self, attempt_id: str, act: Callable[[], T]) -> T:
        """Do it, and again while the store is away: the images in hand cost joules to remake.

        Raises the last Retryable after PATIENCE_S, and Abandoned when asked to give up.
        """
        until_s = monotonic_s() + PATIENCE_S
        while True:
            try:
                result = act()
            except Retryable as error:
                self.trouble = str(error)
                if monotonic_s() > until_s:
                    raise
                with self._asked:
                    if self._asked.wait_for(lambda: self._abandoned(attempt_id), RETRY_S):
                        raise Abandoned from error
            else:
                self.trouble = ""
                return result
