"""What metering costs generation: the same work with it and without, in short blocks by turns.

One process generates shards as a replica does (`ShardRunner`: sampler, encoder, store in memory).
With metering, each attempt is reported to a node's meter, the real actor in a Ray node of its own;
without, the meter's process is stopped (SIGSTOP) and nothing is reported. Pairs of blocks, in
random order within each pair, share whatever else the machine does: the figure is the median of the
pairs' differences, with a 95 % interval from 10,000 bootstrap samples.

Since a machine that others use is noisy, the cost is also accounted for directly: the CPU time of
the meter's process, and the time that the replica waits in `begin` and `end`.

    python benchmarks/metering_overhead.py [--pairs 40] [--block-s 3] [--shard-images 4096]
                                           [--threads 2] [--device cpu] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.actors.node_meter import ReplicaMeter, meter_on
from cluster.ledger.usage import NO_WORK, Work
from cluster.metering.tenant import device_of
from cluster.pipeline.shard_runner import Meter, ShardRunner
from cluster.storage.open import open_store
from cluster.types import MISSING_ENERGY, Energy, Workload
from un0 import Sampler, load_model

MODEL = "fashion32/n512"
GOAL = 0.005


class NoMeter:
    """Reports nothing."""

    hardware = "not metered"

    def begin(self, *_: object) -> None:
        pass

    def end(self, *_: object) -> Energy:
        return MISSING_ENERGY


class Timed:
    """A meter whose answers are waited for by the clock."""

    def __init__(self, meter: ReplicaMeter) -> None:
        self._meter = meter
        self.hardware = meter.hardware
        self.waited_s = 0.0
        self.energies: list[Energy] = []

    def begin(self, attempt_id: str, work: Work = NO_WORK) -> None:
        begin_s = time.perf_counter()
        self._meter.begin(attempt_id, work)
        self.waited_s += time.perf_counter() - begin_s

    def end(self, attempt_id: str, images: int | None = None) -> Energy:
        begin_s = time.perf_counter()
        energy = self._meter.end(attempt_id, images)
        self.waited_s += time.perf_counter() - begin_s
        self.energies.append(energy)
        return energy


@dataclass(frozen=True)
class Block:
    """What a block of the work took. CPU: of this process, and of the meter's."""

    images: int
    wall_s: float
    cpu_s: float
    meter_cpu_s: float

    @property
    def wall(self) -> float:
        return self.wall_s / self.images

    @property
    def cpu(self) -> float:
        return (self.cpu_s + self.meter_cpu_s) / self.images


class Bench:
    """The work, with a meter that can be taken away."""

    def __init__(self, options: argparse.Namespace, root: Path) -> None:
        store = open_store(str(root), probe=False)
        node_id = ray.get_runtime_context().get_node_id()
        self._run = asyncio.run(meter_on(node_id, store.config, "benchmark", "run"))
        self._pid = ray.get(self._run.actor.__ray_call__.remote(lambda _: os.getpid()))
        gpu_name, gpu_uuid = device_of(options.device)
        tenant = self._run.tenant("replica", gpu_uuid, gpu_name)
        self.meter = Timed(ReplicaMeter(self._run, tenant))
        model = load_model(MODEL)
        sampler = Sampler(model, device=options.device, threads=options.threads)
        sampler.warm_up()
        size = sampler.image_size
        self._workload = Workload(
            job_id="benchmark", model=MODEL, model_rev=sampler.model_rev, count=10**9, seed=1,
            shard_images=options.shard_images, class_ids=(0, 1), width=size, height=size,
        )  # fmt: skip
        meters: dict[bool, Meter] = {True: self.meter, False: NoMeter()}
        self._runners = {
            metered: ShardRunner(self._workload, sampler, meter, store, commit_here=False)
            for metered, meter in meters.items()
        }
        self._shards = 0
        self.shards_per_block = 1

    def calibrate(self, block_s: float) -> None:
        """Choose the shards of a block, so that one takes about so long."""
        self.block(metered=False)
        self.shards_per_block = max(1, round(block_s / self.block(metered=False).wall_s))

    def block(self, *, metered: bool) -> Block:
        """Make one. Without a meter its process stands still meanwhile."""
        with self._stopped() if not metered else _as_it_is():
            meter_cpu_s, cpu_s = self._meter_cpu_s(), time.process_time()
            begin_s, images = time.perf_counter(), 0
            for _ in range(self.shards_per_block):
                shard = self._workload.shard(self._shards)
                self._shards += 1
                attempt = self._runners[metered].run(shard, uuid.uuid4().hex)
                if metered:
                    self._run.settle({attempt.record.attempt_id: "won"})
                images += attempt.record.rows
            wall_s, cpu_s = time.perf_counter() - begin_s, time.process_time() - cpu_s
            return Block(images, wall_s, cpu_s, self._meter_cpu_s() - meter_cpu_s)

    def idle_cpu_share(self, seconds: float = 5.0) -> float:
        """Of a core, what the meter's process takes while nobody works: most of it is Ray's."""
        meter_cpu_s = self._meter_cpu_s()
        time.sleep(seconds)
        return (self._meter_cpu_s() - meter_cpu_s) / seconds

    def close(self) -> None:
        ray.get(self._run.leave())

    @contextmanager
    def _stopped(self) -> Iterator[None]:
        os.kill(self._pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self._pid, signal.SIGCONT)

    def _meter_cpu_s(self) -> float:
        tasks = Path(f"/proc/{self._pid}/task").glob("*/schedstat")  # /proc/PID/stat ticks coarsely
        return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9


@contextmanager
def _as_it_is() -> Iterator[None]:
    yield


@dataclass(frozen=True)
class Overhead:
    """A part of the work without metering: median of the pairs, and where 95 % say it is."""

    median: float
    low: float
    high: float


def overhead(on: np.ndarray[Any, Any], off: np.ndarray[Any, Any]) -> Overhead:
    """Of paired costs per image."""
    parts = on / off - 1
    again = np.random.default_rng(0).choice(parts, (10_000, len(parts)))
    low, high = np.percentile(np.median(again, axis=1), (2.5, 97.5))
    return Overhead(float(np.median(parts)), float(low), float(high))


def measure(options: argparse.Namespace, root: Path) -> dict[str, Any]:
    bench = Bench(options, root)
    bench.calibrate(options.block_s)
    idle_share = bench.idle_cpu_share()
    rng = np.random.default_rng(int(time.time()))
    blocks: dict[bool, list[Block]] = {True: [], False: []}
    for _ in range(options.pairs):
        for metered in rng.permutation([True, False]):
            blocks[bool(metered)].append(bench.block(metered=bool(metered)))
    on, off = blocks[True], blocks[False]
    wall_s = sum(block.wall_s for block in on)
    meter_cpu_s = sum(block.meter_cpu_s for block in on)
    figures = {
        "pairs": options.pairs,
        "shards_per_block": bench.shards_per_block,
        "shard_images": options.shard_images,
        "provider": bench.meter._meter.provider,
        "without_energy": sum(energy.energy_mj is None for energy in bench.meter.energies),
        "images_per_s": {
            "on": float(np.median([1 / block.wall for block in on])),
            "off": float(np.median([1 / block.wall for block in off])),
        },
        "wall": asdict(overhead(*(np.array([b.wall for b in side]) for side in (on, off)))),
        "cpu": asdict(overhead(*(np.array([b.cpu for b in side]) for side in (on, off)))),
        "accounted": {
            "waiting_share": bench.meter.waited_s / wall_s,
            "waiting_ms_per_attempt": 1e3 * bench.meter.waited_s / len(bench.meter.energies),
            "meter_cpu_share": meter_cpu_s / sum(block.cpu_s for block in on),
            "meter_cpu_ms_per_s": 1e3 * meter_cpu_s / wall_s,
            "idle_meter_cpu_ms_per_s": 1e3 * idle_share,
        },
        "load_average": os.getloadavg()[0],
    }
    bench.close()
    return figures


def show(figures: dict[str, Any]) -> None:
    rates, accounted = figures["images_per_s"], figures["accounted"]
    print(
        f"{figures['pairs']} pairs of {figures['shards_per_block']} shards of "
        f"{figures['shard_images']} images; {figures['provider']}; "
        f"load average {figures['load_average']:.1f}"
    )
    print(f"images/s           on {rates['on']:,.0f}, off {rates['off']:,.0f} (medians)")
    for name in ("wall", "cpu"):
        part = {key: f"{value:+.2%}" for key, value in figures[name].items()}
        print(f"{name:4} time per image {part['median']} ({part['low']} to {part['high']})")
    print(
        f"waiting for it     {accounted['waiting_share']:.3%} of the time, "
        f"{accounted['waiting_ms_per_attempt']:.1f} ms an attempt"
    )
    print(
        f"the meter's CPU    {accounted['meter_cpu_share']:.3%} of what generating takes, "
        f"{accounted['meter_cpu_ms_per_s']:.1f} ms a second, of which "
        f"{accounted['idle_meter_cpu_ms_per_s']:.1f} when nobody works"
    )
    print(f"goal               under {GOAL:.1%}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--block-s", type=float, default=3.0)
    parser.add_argument("--shard-images", type=int, default=4096)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    memory = Path("/dev/shm")
    try:
        with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as root:
            figures = measure(options, Path(root))
    finally:
        ray.shutdown()
    print(json.dumps(figures)) if options.json else show(figures)


if __name__ == "__main__":
    main()
