"""The whole path of images, from the engine to a store, measured as one replica here has it.

The sampler, the shard runner, its lane of encoders and uploads, and the store are those of a job.
The joules are those of the whole window: while the device works and while it waits. Attempts are
not metered one by one, which would divide the window's energy between them.
"""

from __future__ import annotations

import math
import secrets
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import torch

from cluster.hardware.host_share import cpus_per_gpu
from cluster.hardware.identify import GPU_THREADS, replica_threads
from cluster.ledger.usage import Work
from cluster.measuring import ROUNDS, Measured, OnStep, Window, engine_window, measure
from cluster.metering.bench import BenchMeter
from cluster.pipeline import encode
from cluster.pipeline.publisher import Attempt
from cluster.pipeline.shard_runner import ShardRunner
from cluster.pipeline.stages import Lane
from cluster.scheduler.profiles import Pipeline
from cluster.stage_times import StageTimes
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import (
    MISSING_ENERGY,
    RAW_COMPRESSION,
    Compression,
    Energy,
    ImageEncoding,
    Precision,
    Workload,
    encoding_key,
)
from un0 import Sampler
from un0.machine import cpus_here

SHARD_BYTES = 32 * 2**20  # of pixels: as large as a job's shards by default
SHARD_S = 0.25  # of the engine at most, so that a window holds several shards
IMAGES = 2**40  # more than any window makes


class Output(NamedTuple):
    """How images are written. compression: of raw ones; None is a job's default."""

    encoding: ImageEncoding
    compression: Compression | None = None

    @property
    def key(self) -> str:
        return encoding_key(self.encoding, self.compression)

    @property
    def page_compression(self) -> Compression | None:
        """Of raw images, a job's default included; None for the other encodings."""
        return self.compression or (RAW_COMPRESSION if self.encoding == "raw" else None)


@dataclass(frozen=True)
class EnginePoint(Measured):
    """The engine alone, in windows between those of the paths."""

    batch_size: int
    windows: tuple[Window, ...]


@dataclass(frozen=True)
class PathPoint(Measured):
    """The whole path with one way to write images.

    alone: its engine, measured in turn with it. times: of its stages, in all windows. size_bytes:
    of the files of all windows.
    """

    engine: str
    precision: Precision
    batch_size: int
    output: Output
    windows: tuple[Window, ...]
    alone: EnginePoint
    times: StageTimes
    size_bytes: int

    @property
    def engine_share(self) -> float:
        """Its images/s over those of the engine alone."""
        return self.images_per_s / self.alone.images_per_s

    @property
    def bytes_per_image(self) -> float:
        """Of files in the store, all of their columns and footers included."""
        return self.size_bytes / sum(window.images for window in self.windows)

    def pipeline(self) -> Pipeline | None:
        """The same as the scheduler knows it; None without joules."""
        performance = self.performance()
        if performance is None:
            return None
        return Pipeline(self.output.key, performance, self.times)


class _Unmetered:
    """In place of a meter of attempts."""

    def __init__(self, hardware: str) -> None:
        self.hardware = hardware

    def begin(self, attempt_id: str, work: Work) -> None: ...

    def end(self, _attempt_id: str, _images: int | None = None) -> Energy:
        return MISSING_ENERGY


class Path:
    """A replica's path from a sampler to a store. What it writes is deleted as soon as it is there.

    encoders: its threads. shard_images: of each shard.
    """

    def __init__(
        self, sampler: Sampler, store: ObjectStore, encoders: int, shard_images: int
    ) -> None:
        self._sampler = sampler
        self._store = store
        self._shard_images = shard_images
        self._job = JobLayout(f"bench-{secrets.token_hex(6)}")
        self._lane = Lane(encoders)
        self._numbers = count()  # of shards: no key is written twice

    def window(
        self, bench: BenchMeter, output: Output, seconds: float
    ) -> tuple[Window, StageTimes, int]:
        """(the window, its stages' times, bytes written) of shards made for at least so long, and
        until the last of them is committed. Raises what an attempt raises."""
        runner = self._runner(output)
        attempts: list[Future[Attempt]] = []

        def make(_first: int, _count: int) -> None:
            attempts.append(self._start(runner, output))

        def finish() -> None:
            for attempt in attempts:
                attempt.result()

        shard = self._shard_images
        window = measure(bench, make, shard, seconds, most=shard, finish=finish)
        times = runner.times
        size_bytes = sum(part.size_bytes for a in attempts for part in a.result().record.objects)
        return window, times, size_bytes

    def warm_up(self, output: Output) -> None:
        """Make one shard that does not count: compilers and libraries are loaded by it."""
        self._start(self._runner(output), output).result()

    def close(self) -> None:
        """Stop the stages, and delete what is left of its objects."""
        self._lane.close()
        for info in list(self._store.list(self._job.root)):
            self._store.delete(info.key)

    def _runner(self, output: Output) -> ShardRunner:
        return ShardRunner(
            self._workload(output),
            self._sampler,
            _Unmetered(self._sampler.device.type),
            self._store,
            commit_here=not self._store.config.single_writer,
            lane=self._lane,
        )

    def _start(self, runner: ShardRunner, output: Output) -> Future[Attempt]:
        shard = self._workload(output).shard(next(self._numbers))
        attempt = runner.start(shard, secrets.token_hex(16))
        attempt.add_done_callback(self._forget)
        return attempt

    def _forget(self, attempt: Future[Attempt]) -> None:
        """Delete what the attempt has written: a fast device fills a disk within minutes."""
        if attempt.cancelled() or attempt.exception() is not None:
            return
        record = attempt.result().record
        for key in (self._job.commit(record.shard), *(part.key for part in record.objects)):
            self._store.delete(key)

    def _workload(self, output: Output) -> Workload:
        sampler = self._sampler
        return Workload(
            job_id=self._job.job_id,
            model="bench",
            model_rev=sampler.model_rev,
            count=IMAGES,
            seed=0,
            shard_images=self._shard_images,
            class_ids=tuple(range(sampler.config.num_classes)),
            labels=sampler.labels,
            width=sampler.image_size,
            height=sampler.image_size,
            encoding=output.encoding,
            precision=sampler.precision,
            compression=output.compression,
        )


def measure_paths(
    sampler: Sampler,
    outputs: Sequence[Output],
    bench: BenchMeter,
    store: ObjectStore | None = None,
    *,
    seconds: float,
    rounds: int = ROUNDS,
    on_step: OnStep = lambda _done, _total, _what: None,
) -> list[PathPoint]:
    """The whole path with each of the outputs, and the engine alone, in turn in every round.

    store: None is a local directory of its own, which is removed. Raises what attempts raise.
    """
    if store is None:
        with tempfile.TemporaryDirectory(prefix="un0-bench-") as place:
            return measure_paths(
                sampler, outputs, bench, open_store(place),
                seconds=seconds, rounds=rounds, on_step=on_step,
            )  # fmt: skip
    encode.warm_up()
    sampler.warm_up()
    steps, total = count(), rounds * (1 + len(outputs))

    def step(what: str) -> None:
        on_step(next(steps), total, f"{sampler.precision}, {what}")

    step("engine alone")
    engine = [engine_window(bench, sampler, seconds)]
    path = Path(sampler, store, encoders_here(sampler.device), shard_images(sampler, engine[0]))
    found: dict[Output, list[tuple[Window, StageTimes, int]]] = {out: [] for out in outputs}
    try:
        for number in range(rounds):
            if number:
                step("engine alone")
                engine.append(engine_window(bench, sampler, seconds))
            for output in outputs:
                step(f"{output.key} into the store")
                if not number:
                    path.warm_up(output)
                found[output].append(path.window(bench, output, seconds))
    finally:
        path.close()
    alone = EnginePoint(sampler.tile, tuple(engine))
    return [
        PathPoint(
            sampler.engine_name,
            sampler.precision,
            sampler.tile,
            output,
            tuple(window for window, _, _ in own),
            alone,
            sum((times for _, times, _ in own), StageTimes()),
            sum(size_bytes for _, _, size_bytes in own),
        )
        for output, own in found.items()
    ]


def threads_here(device: torch.device) -> int:
    """As many threads as generate in a replica on this device."""
    return GPU_THREADS if device.type == "cuda" else replica_threads(cpus_here().usable)


def encoders_here(device: torch.device) -> int:
    """As many encoders as a replica on this device has: a GPU's share of the CPUs, else one."""
    if device.type == "cpu":
        return 1
    names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return cpus_per_gpu(cpus_here().usable, names)[device.index or 0]


def shard_images(sampler: Sampler, engine: Window) -> int:
    """Whole batches of the engine: a quarter of a second of it, at most what fits a shard."""
    unit = sampler.tile * sampler.threads
    most = SHARD_BYTES // (3 * sampler.image_size**2)
    wanted = min(engine.images / engine.duration_s * SHARD_S, most)
    return unit * max(1, math.ceil(wanted / unit))
