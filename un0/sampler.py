"""Sampler: seed, start and class ids in, 8-bit images out; the same bytes however it is cut.

Image ``i`` depends on (model revision, seed, i, class) only. Libraries choose kernels, and so the
order of additions, by shape and by thread count. Therefore work is cut into tiles of one fixed
size, image ``i`` always sits in row ``i % tile``, and on a CPU each tile is computed by a single
thread: parallel work is many tiles at once. An engine that adds in one order whatever the shape
(``any_rows``) needs none of it: its tiles hold what was asked for, and threads may share one.
"""

from __future__ import annotations

import logging
import platform
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from un0.config import ModelConfig
from un0.engine import Precision, build_engine, tuning
from un0.engine.base import Renderer, Sharing
from un0.errors import InputError
from un0.memory import Plan, plan, remember_tile
from un0.model import Un0Model
from un0.noise import MAX_INDEX, check_seed, initial_phases
from un0.noise_rows import RowNoise
from un0.workers import Together, default_threads, keep_freed_memory, one_thread_workers

logger = logging.getLogger(__name__)

Images = NDArray[np.uint8]
ClassIds = Sequence[int] | NDArray[np.integer[Any]]


@dataclass(frozen=True)
class _Tile:
    """The images ``start`` .. are asked for, in the rows ``first`` .. of ``size``.

    members: threads that compute it together, at most. noise: of each image, where that does not
    follow from the seed and its index.
    """

    start: int
    first: int
    size: int
    class_ids: NDArray[np.int64]
    members: int = 1
    noise: RowNoise | None = None


class Sampler:
    """Generates images of one model on one device. Safe to call from several threads."""

    def __init__(
        self,
        model: Un0Model,
        *,
        device: str = "auto",
        precision: Precision = "fp32",
        tile: int | None = None,
        threads: int | None = None,
        engine: str | None = None,
    ) -> None:
        """Prepare ``model``; it may be dropped afterwards.

        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1" ... tile: images per engine
        call; leave it out to get the same bytes as everyone else. threads: each computes a tile, or
        some a small one together; None takes PyTorch's number of threads on a CPU, or the usable
        CPUs if those are fewer. engine: a name from ``un0.engine.ENGINES``. Raises InputError on
        what this machine or model cannot do.
        """
        self.device = find_device(device)
        self.precision = precision
        own_choice = tile is None
        if tile is None:
            tile = _tile_that_fits(model.config, self.device, precision)
        self._engine = build_engine(model, self.device, precision, tile=tile, name=engine)
        self._sharing = self._engine if isinstance(self._engine, Sharing) else None
        self.tile = self._engine.tile
        self._halving, self._lining_up, self._counting = (threading.Lock() for _ in range(3))
        self._busy = 0  # threads that compute
        self.config: ModelConfig = model.config
        self._tunable = own_choice and self._engine.any_rows
        if self._tunable:
            self.tile = tuning.recall(self._tuning_key) or self.tile
        self.labels = model.labels
        self.model_rev = model.rev
        if threads is not None and threads < 1:
            raise InputError(f"threads is {threads}; give at least 1, or leave it out")
        # On a GPU a second thread keeps the device fed while the first copies its images out.
        self.threads = threads or (default_threads() if self.device.type == "cpu" else 2)
        self._pool = one_thread_workers(self.threads)
        most = min(self.threads, 1 if self._sharing is None else self._sharing.most)
        self._team_sizes = [m for m in range(1, most + 1) if self.threads % m == 0]
        if self.device.type == "cpu":
            keep_freed_memory()

    @property
    def image_size(self) -> int:
        """Pixels on a side."""
        return self.config.image_size

    def plan(self, device: str | None = None) -> Plan:
        """How many images at once another sampler of this model would make on a device (this one's
        by default), and the memory that takes."""
        wanted = self.device if device is None else find_device(device)
        return plan(self.config, wanted, self.precision)

    @property
    def engine_name(self) -> str:
        return self._engine.name

    @property
    def device_name(self) -> str:
        """The device in words, such as ``NVIDIA H100 80GB HBM3`` or the processor's name."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return _cpu_name()

    def generate(self, seed: int, start: int, class_ids: ClassIds) -> Images:
        """Images (B, H, W, 3) uint8: image ``start + k`` has class ``class_ids[k]``.

        Raises InputError on a seed, index or class id out of range.
        """
        images = np.empty((len(class_ids), self.image_size, self.image_size, 3), dtype=np.uint8)
        for offset, part in self.generate_tiles(seed, start, class_ids):
            images[offset : offset + len(part)] = part
        return images

    def generate_tiles(
        self, seed: int, start: int, class_ids: ClassIds, noise: RowNoise | None = None
    ) -> Iterator[tuple[int, Images]]:
        """Yield (offset, images (b, H, W, 3) uint8) in order, while later tiles are computed.

        noise: of each image, in place of that of ``seed`` and its index. Arguments are checked at
        the call. Dropping the iterator cancels what has not begun.
        """
        seed = check_seed(seed)
        ids = self._check_class_ids(class_ids)
        if not isinstance(start, int | np.integer) or not 0 <= start <= MAX_INDEX + 1 - len(ids):
            raise InputError(
                f"start is {start!r}; give a whole number from 0, with the last image at most "
                f"{MAX_INDEX}"
            )
        own = None if noise is None else noise.checked(len(ids))
        return self._in_order(seed, self._cut(int(start), ids, own))

    def warm_up(self) -> None:
        """Compile, allocate and pick kernels now, so that the first request is not the slow one.

        Where the tile changes no byte, it is also chosen now, or was by an earlier process.
        """
        if self._tunable and tuning.recall(self._tuning_key) is None:
            self.tile = tuning.measure_tile(self._engine, self.config, self._pool, self.threads)
            tuning.remember(self._tuning_key, self.tile)
        self.generate(0, 0, np.zeros(self.tile * self.threads, dtype=np.int64))

    @cached_property  # it reads the engines' sources
    def _tuning_key(self) -> str:
        return tuning.key_of(self._engine, self.precision, self.config, self.device_name)

    def _in_order(self, seed: int, tiles: Iterator[_Tile]) -> Iterator[tuple[int, Images]]:
        offset = 0
        pending: deque[Future[Images] | Together] = deque()
        try:
            for tile in tiles:
                pending.append(self._begin(seed, tile))
                if len(pending) > self.threads:  # one more than are running: none has to wait
                    images = pending.popleft().result()
                    yield offset, images
                    offset += len(images)
            while pending:
                images = pending.popleft().result()
                yield offset, images
                offset += len(images)
        finally:
            for future in pending:
                future.cancel()

    def _begin(self, seed: int, tile: _Tile) -> Future[Images] | Together:
        # None of a team should wait for a thread that has other work to do first.
        alone = tile.members == 1 or self._busy + tile.members > self.threads
        if alone or self._sharing is None:
            return self._pool.submit(self._counted, self._compute, seed, tile)
        phases = self._phases(seed, tile)
        shared = Together(
            self._sharing.share(phases, torch.from_numpy(tile.class_ids), tile.members), []
        )
        try:
            with self._lining_up:  # side by side: two teams must not wait for each other's members
                for member in range(tile.members):
                    part = self._pool.submit(self._counted, shared.job.work, member)
                    shared.parts.append(part)
        except BaseException:
            shared.cancel()
            raise
        return shared

    def _counted(self, work: Callable[..., Any], *given: Any) -> Any:
        with self._counting:
            self._busy += 1
        try:
            return work(*given)
        finally:
            with self._counting:
                self._busy -= 1

    def _cut(
        self, start: int, ids: NDArray[np.int64], noise: RowNoise | None = None
    ) -> Iterator[_Tile]:
        pieces = self._cut_evenly if self._engine.any_rows else self._cut_in_place
        for tile in pieces(start, ids):
            first = tile.start - start
            own = None if noise is None else noise.part(first, first + len(tile.class_ids))
            yield replace(tile, noise=own)

    def _cut_in_place(self, start: int, ids: NDArray[np.int64]) -> Iterator[_Tile]:
        done = 0
        while done < len(ids):
            first = (start + done) % self.tile
            rows = min(self.tile - first, len(ids) - done)
            yield _Tile(start + done, first, self.tile, ids[done : done + rows])
            done += rows

    def _cut_evenly(self, start: int, ids: NDArray[np.int64]) -> Iterator[_Tile]:
        """As many tiles for each thread, no larger than they must be; where they would be small,
        as many threads for each tile."""
        rounds = -(-len(ids) // (self.tile * self.threads))
        members = 1
        if rounds == 1 and self._sharing is not None:
            for members in self._team_sizes:
                if len(ids) * members > self._sharing.few * self.threads:
                    break
        tiles = min(rounds * self.threads // members, len(ids))
        bounds = (len(ids) * k // tiles for k in range(tiles + 1) if tiles)
        for begin, end in pairwise(bounds):
            yield _Tile(start + begin, 0, end - begin, ids[begin:end], members)

    def _compute(self, seed: int, tile: _Tile) -> Images:
        try:
            return self._render(seed, tile)
        except torch.OutOfMemoryError as error:
            if tile.size == 1:
                raise
            reason = str(error).splitlines()[0]
        # Outside of the handler, which would keep what did not fit alive.
        self._halve(tile.size, reason)
        parts = list(self._cut(tile.start, tile.class_ids, tile.noise))
        return np.concatenate([self._compute(seed, part) for part in parts])

    def _halve(self, size: int, reason: str) -> None:
        """Make tiles of half that size from now on, unless another thread has done so already."""
        with self._halving:
            if self.tile < size:
                return
            self.tile = size // 2
            remember_tile(self.config, self.device, self.precision, self.tile)
            if isinstance(self._engine, Renderer):
                self._engine.forget()
        logger.warning(
            "%d images at once do not fit on %s (%s); going on with %d, which may change an "
            "image's last bits", size, self.device, reason, size // 2,
        )  # fmt: skip

    def _render(self, seed: int, tile: _Tile) -> Images:
        rows = len(tile.class_ids)
        wanted = slice(tile.first, tile.first + rows)
        if isinstance(self._engine, Renderer) and tile.noise is None:
            ids = np.zeros(tile.size, dtype=np.int64)
            ids[wanted] = tile.class_ids
            return self._engine.render(seed, tile.start - tile.first, ids)[wanted]
        phases = self._phases(seed, tile)
        class_ids = torch.from_numpy(tile.class_ids)
        if rows < tile.size:
            padded = phases.new_zeros(tile.size, phases.shape[1])
            padded[wanted] = phases
            padded_ids = torch.zeros(tile.size, dtype=torch.long)
            padded_ids[wanted] = class_ids
            phases, class_ids = padded, padded_ids
        images: Images = self._engine(phases, class_ids.to(self.device))[wanted].cpu().numpy()
        return images

    def _phases(self, seed: int, tile: _Tile) -> Tensor:
        if tile.noise is not None:
            return tile.noise.phases(self.config.n + self.config.n_cond, self.device)
        indices = range(tile.start, tile.start + len(tile.class_ids))
        return initial_phases(seed, indices, self.config.n + self.config.n_cond, self.device)

    def _check_class_ids(self, class_ids: ClassIds) -> NDArray[np.int64]:
        ids = np.asarray(class_ids)
        if ids.size == 0:
            return np.zeros(0, dtype=np.int64)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise InputError(
                f"class ids have shape {ids.shape} and type {ids.dtype}; give a flat list of whole "
                "numbers"
            )
        top = self.config.num_classes - 1
        wrong = (ids < 0) | (ids > top)
        if wrong.any():
            raise InputError(
                f"class id {ids[wrong][0]} is out of range; this model has classes 0 to {top}"
            )
        return ids.astype(np.int64)


def _tile_that_fits(config: ModelConfig, device: torch.device, precision: Precision) -> int:
    found = plan(config, device, precision)
    if not found.usual_bytes:
        logger.warning(
            "%s has %.1f GB free: %d images at once instead of %d, which may change an image's "
            "last bits", device, (found.free_bytes or 0) / 1e9, found.tile, found.default_tile,
        )  # fmt: skip
    return found.tile


def find_device(name: str) -> torch.device:
    """The device called auto, cpu, cuda or cuda:N, or InputError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"device is {name!r}; choose auto, cpu, cuda or cuda:0 ...") from None
    if device.type == "cuda" and not (device.index or 0) < torch.cuda.device_count():
        raise InputError(
            f"device is {name!r}, but PyTorch sees {torch.cuda.device_count()} CUDA devices; "
            "choose another, or auto"
        )
    return device


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
