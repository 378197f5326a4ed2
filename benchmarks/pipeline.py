"""From pixels to committed Parquet behind a device as fast as memory: what the host can do.

First table: every encoding, 32 and 64 px, one and two encoder threads, a store in memory; beside
the path as it stood before (``before.py``) and beside the limit: what encoding,
compressing and one digest of the same images take by themselves. Each row runs in a process of its
own, rounds interleaved, medians. ``peak_mb`` is what the process grew by, ``held_mb`` what it
counted against its budget; one row has a store that takes 2 s for each put.

Second table (``--devices``): devices of 10 k, 100 k and 1 M images/s before a real S3 server:
how much of the time the device was busy, and which stage was the bottleneck.

    python benchmarks/pipeline.py [--seconds 1.5] [--rounds 3] [--devices] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import before
import numpy as np
from numpy.typing import NDArray
from pictures import Images, bundled, natural

from cluster.ledger.usage import Work
from cluster.pipeline.encode import encode_batch
from cluster.pipeline.parquet import shard_parquet
from cluster.pipeline.shard_runner import ShardRunner
from cluster.pipeline.stages import Lane
from cluster.storage.chunks import Chunks
from cluster.storage.dev_s3 import DevS3
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.types import Energy, ImageEncoding, Shard, Workload
from un0 import DEFAULT_MODEL

TILE_PIXELS = 2**20
KINDS: list[tuple[ImageEncoding, str | None]] = [
    ("png", None), ("jpeg", None), ("webp", None),
    ("raw", "none"), ("raw", "lz4"), ("raw", "zstd"),
]  # fmt: skip
ENERGY = Energy(energy_mj=1, quality="measured_counter", method="none")
MB = 2**20


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


def run_case(case: Case, images: Images, seconds: float) -> dict[str, float]:
    """In a process of its own: figures of as many shards as fit in about so many seconds."""
    store = MemoryStore(case.put_s)
    shard_images = 8 * len(images)
    workload = case.workload(images, 10**9, shard_images)
    device = Device(images)
    if case.way == "before":
        warm = [workload.shard(0)]
        before.run(workload, device, warm, lambda data: store.put("", data))
        lane = None
    else:
        lane = Lane(encoders=case.threads)
        runner = ShardRunner(
            workload, device, NoMeter(), cast(ObjectStore, store), commit_here=False, lane=lane
        )
        runner.run(workload.shard(0), "warm")
    _reset_peak()
    grown_from, store.size_bytes = _memory("VmRSS"), 0
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    shards: list[Shard] = []

    def more() -> Iterator[Shard]:
        while time.monotonic() - began_s < seconds or len(shards) < 2 * case.threads:
            shards.append(workload.shard(len(shards)))
            yield shards[-1]

    if case.way == "before":
        before.run(workload, device, more(), lambda data: store.put("", data))
    else:
        for attempt in [runner.start(shard, f"a{shard.index}") for shard in more()]:
            attempt.result()
    made = len(shards) * shard_images
    return {
        "images_per_s": made / (time.monotonic() - began_s),
        "images_per_cpu_s": made / (time.process_time() - began_cpu_s),
        "bytes_per_image": store.size_bytes / made,
        "peak_mb": max(0.0, _memory("VmHWM") - grown_from) / MB,
        "held_mb": lane.budget.peak_bytes / MB if lane else 0.0,
    }


def limit(case: Case, images: Images) -> float:
    """Images per CPU second if there were nothing but encoding, compressing and one digest."""
    workload = case.workload(images, len(images), len(images))
    shard, class_ids = workload.shard(0), workload.classes_of(0, len(images))
    encoded = encode_batch(images, case.encoding)
    data = encoded.data.tobytes()
    took = {"encode": _cpu_s(lambda: encode_batch(images, case.encoding))}
    written = bytes(shard_parquet(workload, shard, class_ids, [encoded], ENERGY, "test"))
    took["digest"] = _cpu_s(lambda: hashlib.sha256(written).digest())
    if case.compression in ("lz4", "zstd"):
        import pyarrow as pa

        codec = pa.Codec("lz4_raw" if case.compression == "lz4" else case.compression)
        pages = [data[at : at + MB] for at in range(0, len(data), MB)]
        took["compress"] = _cpu_s(lambda: [codec.compress(page) for page in pages])
    return len(images) / sum(took.values())


def _cpu_s(work: Any, rounds: int = 3) -> float:
    took = []
    for _ in range(rounds):
        began_s = time.thread_time()
        work()
        took.append(time.thread_time() - began_s)
    return statistics.median(took)


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def _memory(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(name)).split()[1]) * 1024


def apart(work: Any, *given: Any) -> Any:
    """The result of the work in a process of its own, forked: peaks and pools are its own."""
    context = multiprocessing.get_context("fork")
    with context.Pool(1) as pool:
        return pool.apply(work, given)


def table(seconds: float, rounds: int) -> list[dict[str, Any]]:
    """A row for each case, medians of the rounds, interleaved."""
    pictures = {name: apart(images_of, name) for name in ("bundled-32", "natural-32", "natural-64")}
    cases = [
        Case(name, encoding, compression, threads)
        for name in pictures
        for encoding, compression in KINDS
        for threads in (1, 2)
    ]
    cases.append(Case("natural-32", "raw", "none", 2, put_s=2.0))
    found: dict[Case, list[dict[str, float]]] = {}
    for _ in range(rounds):
        for case in cases:
            ways = [case]
            if case.threads == 1 and not case.put_s and case.compression in (None, "zstd"):
                ways.append(Case(case.pictures, case.encoding, case.compression, 1, "before"))
            for way in ways:
                found.setdefault(way, []).append(
                    apart(run_case, way, pictures[case.pictures], 6.0 if way.put_s else seconds)
                )
    figures = {case: _medians(results) for case, results in found.items()}
    rows = []
    for case in cases:
        compression = "zstd" if case.encoding == "raw" else case.compression
        peer = figures[Case(case.pictures, case.encoding, compression, 1, "before")]
        rows.append(
            {
                "pictures": case.pictures.partition("-")[0],
                "encoding": case.encoding,
                "compression": case.compression,
                "px": int(case.pictures.partition("-")[2]),
                "threads": case.threads,
                "put_s": case.put_s,
                **figures[case],
                "before_images_per_cpu_s": peer["images_per_cpu_s"],
                "before_bytes_per_image": peer["bytes_per_image"],
                "limit_images_per_cpu_s": apart(limit, case, pictures[case.pictures]),
            }
        )
    return rows


def _medians(results: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(r[name] for r in results) for name in results[0]}


def devices(seconds: float) -> list[dict[str, Any]]:
    """Rows for simulated devices before a real S3 server."""
    rows = []
    images = apart(images_of, "bundled-32")
    with DevS3() as server:
        os.environ.update(server.env())
        store = open_store(f"{server.uri}/pipeline")
        for encoding, compression in (("png", None), ("raw", "none")):
            for rate in (10_000, 100_000, 1_000_000):
                case = Case("bundled-32", cast(ImageEncoding, encoding), compression, 2)
                rows.append(apart(run_device, case, images, rate, store, seconds))
    return rows


def run_device(
    case: Case, images: Images, rate: float, store: ObjectStore, seconds: float
) -> dict[str, Any]:
    tile = max(64, min(len(images), int(rate / 50)))
    shard_images = max(tile, min(8 * len(images), int(rate)))
    workload = case.workload(images, 10**9, shard_images)
    lane = Lane(encoders=case.threads)
    runner = ShardRunner(
        workload, Device(images[:tile], rate), NoMeter(), store, commit_here=False, lane=lane
    )
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    attempts = []
    while time.monotonic() - began_s < seconds:
        shard = workload.shard(len(attempts))
        attempts.append(runner.start(shard, f"a{shard.index}"))
    for attempt in attempts:
        attempt.result()
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    times, made = runner.times, len(attempts) * shard_images
    return {
        "encoding": case.encoding,
        "compression": case.compression,
        "device_images_per_s": rate,
        "images_per_s": made / took_s,
        "cpus_busy": cpu_s / took_s,
        "stage_share": times.shares,
        "bottleneck": times.bottleneck,
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--devices", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.devices:
        rows = devices(4 * options.seconds)
    else:
        rows = table(options.seconds, options.rounds)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    show_devices(rows) if options.devices else show(rows)


def show(rows: list[dict[str, Any]]) -> None:
    print(
        "pictures px  encoding  threads  images/s  per CPU s  before  x     limit  of it  bytes  "
        "(before)  peak MB"
    )
    for row in rows:
        name = row["encoding"] + ("" if row["compression"] is None else f" {row['compression']}")
        if row["put_s"]:
            name += f", {row['put_s']:.0f} s a put"
        per_cpu_s, peer = row["images_per_cpu_s"], row["before_images_per_cpu_s"]
        most = row["limit_images_per_cpu_s"]
        size, size_before = row["bytes_per_image"], row["before_bytes_per_image"]
        print(
            f"{row['pictures']:8} {row['px']}  {name:9} {row['threads']:2}  "
            f"{row['images_per_s']:9,.0f} {per_cpu_s:9,.0f} {peer:8,.0f} {per_cpu_s / peer:5.2f} "
            f"{most:9,.0f} {per_cpu_s / most:5.0%} {size:7,.0f} ({size_before:,.0f}) "
            f"{row['peak_mb']:6.0f}"
        )


def show_devices(rows: list[dict[str, Any]]) -> None:
    print("encoding   device images/s   images/s   CPUs busy   device  encode  upload   bottleneck")
    for row in rows:
        name = row["encoding"] + ("" if row["compression"] is None else f" {row['compression']}")
        shares = "  ".join(f"{share:6.1%}" for share in row["stage_share"].values())
        print(
            f"{name:10} {row['device_images_per_s']:12,} {row['images_per_s']:12,.0f} "
            f"{row['cpus_busy']:8.2f}   {shares}   {row['bottleneck']}"
        )


if __name__ == "__main__":
    main()
