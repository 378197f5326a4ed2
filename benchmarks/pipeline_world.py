"""What the tables of benchmarks/pipeline.py share: devices, a meter, a store, cases, processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pictures import Images, bundled, natural

from cluster.ledger.usage import Work
from cluster.storage.chunks import Chunks
from cluster.types import Energy, ImageEncoding, Workload
from un0 import DEFAULT_MODEL

TILE_PIXELS = 2**20
ENERGY = Energy(energy_mj=1, quality="measured_counter", method="none")


class Device:
    """Hands out ready tiles: as fast as memory, or so many images a second."""

    def __init__(self, images: Images, images_per_s: float | None = None) -> None:
        self._images = images
        self._rate = images_per_s
        self._due_s = 0.0

    def generate_tiles(
        self, _seed: int, _start: int, class_ids: NDArray[np.int64]
    ) -> Iterator[tuple[int, Images]]:
        tile = len(self._images)
        for offset in range(0, len(class_ids), tile):
            rows = min(tile, len(class_ids) - offset)
            if self._rate is not None:
                self._wait(rows / self._rate)
            yield offset, self._images[:rows]

    def _wait(self, needs_s: float) -> None:
        """Work goes on while nobody waits, but no further than a tile ahead."""
        now_s = time.monotonic()
        self._due_s = max(self._due_s, now_s - needs_s) + needs_s
        if self._due_s > now_s:
            time.sleep(self._due_s - now_s)


class NoMeter:
    hardware = "test"

    def begin(self, attempt_id: str, work: Work) -> None: ...

    def end(self, _attempt_id: str, _images: int | None = None) -> Energy:
        return ENERGY


class MemoryStore:
    """Takes objects and forgets them. put_s: for each."""

    def __init__(self, put_s: float = 0.0) -> None:
        self._put_s = put_s
        self.size_bytes = 0

    def put(self, _key: str, data: bytes | Chunks) -> None:
        self.size_bytes += data.size_bytes if isinstance(data, Chunks) else len(data)
        time.sleep(self._put_s)


@dataclass(frozen=True)
class Case:
    """One row: what is made, how, and where to."""

    pictures: str
    encoding: ImageEncoding
    compression: str | None
    threads: int
    way: str = "now"  # or "before"
    put_s: float = 0.0

    def workload(self, images: Images, count: int, shard_images: int) -> Workload:
        made = Workload(
            job_id="20261128T000000-abcdef", model=DEFAULT_MODEL, model_rev="0" * 64, seed=1,
            class_ids=tuple(range(10)), labels=tuple("abcdefghij"), count=count,
            width=images.shape[2], height=images.shape[1], encoding=self.encoding,
            shard_images=shard_images,
        )  # fmt: skip
        return made.model_copy(update={"compression": self.compression})


def images_of(pictures: str) -> Images:
    """A tile of images such as ``natural-32``."""
    kind, _, side = pictures.partition("-")
    count = TILE_PIXELS // int(side) ** 2
    return bundled(count) if kind == "bundled" else natural(count, int(side))


def reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def apart(work: Any, *given: Any) -> Any:
    """The result of the work in a process of its own, forked: peaks and pools are its own."""
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        return pool.apply(work, given)
