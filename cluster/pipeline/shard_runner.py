"""Run shards with a sampler, a meter and a store. Free of Ray.

One runner serves one job on one replica. Its device makes one shard at a time; encoding and
uploading earlier shards overlap with that (``cluster.pipeline.stages``), so that the device waits
for storage only when the memory budget is used up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.clock import monotonic_s
from cluster.ledger.usage import Work
from cluster.pipeline.encode import encode_batch
from cluster.pipeline.encoded import Encoded
from cluster.pipeline.giving_up import GivenUp
from cluster.pipeline.publisher import Attempt, Generated, Publisher
from cluster.pipeline.rows_ahead import RowsAhead
from cluster.pipeline.stages import Holding, Lane, StageClock
from cluster.stage_times import StageTimes
from cluster.storage.chunks import Chunks
from cluster.storage.job_rows import JobRows
from cluster.storage.object_store import ObjectStore
from cluster.types import Energy, Shard, Workload

if TYPE_CHECKING:
    from un0.noise_rows import RowNoise

Images = NDArray[np.uint8]


class Sampler(Protocol):
    """What the runner needs of ``un0.Sampler``."""

    def generate_tiles(
        self, seed: int, start: int, class_ids: NDArray[np.int64], noise: RowNoise | None = None
    ) -> Iterator[tuple[int, Images]]:
        """Consecutive pieces of the images start.., as (offset from start, uint8 (B, H, W, 3)).

        noise: of each image, where that is not of the seed and its index."""
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
        self._lane = lane or Lane()
        self._given_up = GivenUp()
        self._rows = RowsAhead(store, workload)
        self._publisher = Publisher(workload, store, self._given_up, commit_here=commit_here)
        self._clock = StageClock(self._lane.encoders, self._lane.uploads)

    @property
    def trouble(self) -> str:
        """What keeps the store from taking images; empty while nothing does."""
        return self._publisher.trouble

    @property
    def times(self) -> StageTimes:
        """How busy its stages have been, since the first of them was."""
        return self._clock.times()

    def run(
        self,
        shard: Shard,
        attempt_id: str,
        on_images: Callable[[int], None] = lambda _: None,
    ) -> Attempt:
        """Make one attempt at the shard and wait for its commit; see ``start``."""
        return self.start(shard, attempt_id, on_images).result()

    def start(
        self,
        shard: Shard,
        attempt_id: str,
        on_images: Callable[[int], None] = lambda _: None,
    ) -> Future[Attempt]:
        """Generate the shard; the rest of the attempt goes on behind the device, in order.

        attempt_id: unique to this attempt; its energy is kept, and its objects lie, under it.
        on_images: called every few images. Returns once the device has made all of them, which
        takes longer while the stages behind are full. Raises Abandoned after ``abandon``, and what
        the sampler or the encoder raise; the future also what the store raises.
        """
        holding = self._lane.budget.holding()
        encoding: list[Future[Encoded]] = []
        try:
            with self._lane.turn:
                made = self._generate(shard, attempt_id, on_images, encoding, holding)
        except BaseException:
            for part in encoding:
                part.cancel()
            holding.release()
            raise
        packed = self._lane.encoding.submit(self._pack, made, encoding, holding)
        return self._lane.uploading.submit(self._publish, made, packed, holding)

    def abandon(self, attempt_ids: Collection[str] | None = None, within_s: float = 0.0) -> None:
        """Give up what of these attempts, or of all, is not generated yet, at the next tile; but
        not what at its pace so far will be within so many seconds. Attempts past that still
        commit, unless the store is away."""
        self._given_up.ask(attempt_ids, within_s)

    def _generate(
        self,
        shard: Shard,
        attempt_id: str,
        on_images: Callable[[int], None],
        encoding: list[Future[Encoded]],
        holding: Holding,
    ) -> Generated:
        """The device's part; its tiles are handed to the encoders as they come."""
        self._given_up.check(attempt_id, math.inf)
        rows = self._rows.take(shard)
        made = good = 0  # images; parts that are known to be encoded
        began_s = monotonic_s()

        def look() -> None:
            """Whether to go on: as long as it is wanted, and the encoders work."""
            nonlocal good
            left = (shard.rows - made) / made
            self._given_up.check(attempt_id, left * (monotonic_s() - began_s))
            while good < len(encoding) and encoding[good].done():
                encoding[good].result()
                good += 1

        self._meter.begin(attempt_id, self._work(shard))
        try:
            tiles = self._tiles(shard, rows)
            while (images := self._next(tiles)) is not None:
                made += len(images)
                on_images(len(images))
                holding.take(images.nbytes, look)
                encoding.append(self._lane.encoding.submit(self._encode, images, holding))
                look()
            generate_s = monotonic_s() - began_s
        finally:
            energy = self._meter.end(attempt_id, made)
        hardware = self._meter.hardware
        return Generated(shard, attempt_id, rows, energy, generate_s, hardware)

    def _tiles(self, shard: Shard, rows: JobRows) -> Iterator[tuple[int, Images]]:
        asked = (self._workload.seed, shard.start, rows.class_ids)
        if rows.seeds is None or rows.indices is None:
            return self._sampler.generate_tiles(*asked)
        from un0.noise_rows import RowNoise  # it imports torch

        return self._sampler.generate_tiles(*asked, RowNoise(rows.seeds, rows.indices))

    def _next(self, tiles: Iterator[tuple[int, Images]]) -> Images | None:
        with self._clock.busy("device"):
            _, images = next(tiles, (0, None))
        return images

    def _encode(self, images: Images, holding: Holding) -> Encoded:
        with self._clock.busy("encode"):
            encoded = encode_batch(images, self._workload.encoding)
        holding.replace(images.nbytes, encoded.data.nbytes)
        return encoded

    def _pack(self, made: Generated, encoding: list[Future[Encoded]], holding: Holding) -> Chunks:
        """Encoders take what is submitted in order, so all parts are done or under way: no thread
        waits here for work that needs it."""
        parts = [part.result() for part in encoding]
        encoding.clear()
        with self._clock.busy("encode"):
            chunks = self._publisher.pack(made, parts)
        holding.replace(holding.size_bytes, chunks.size_bytes)
        return chunks

    def _publish(self, made: Generated, packed: Future[Chunks], holding: Holding) -> Attempt:
        try:
            data = packed.result()
            with self._clock.busy("upload"):
                return self._publisher.publish(made, data)
        finally:
            holding.release()

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
