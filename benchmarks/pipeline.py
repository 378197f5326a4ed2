"""From pixels to committed Parquet behind a device as fast as memory: what the host can do.

First table: every encoding, 32 and 64 px, one and two encoder threads, a store in memory; beside
the path as it stood before (``before.py``) and beside the limit: what encoding,
compressing and one digest of the same images take by themselves. Each row runs in a process of its
own, rounds interleaved, medians. ``peak_mb`` is what the process grew by, ``held_mb`` what it
counted against its budget; one row has a store that takes 2 s for each put.

Second table (``--devices``): devices of 10 k, 100 k and 1 M images/s before a real S3 server:
how much of the time the device was busy, and which stage was the bottleneck.

    python benchmarks/pipeline.py [--seconds 1.5] [--rounds 3] [--encodings png jpeg webp raw]
        [--devices] [--json]

WebP takes by far the longest. The path as it stood before needs the extra ``bench``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import time
from collections.abc import Collection, Iterator
from typing import Any, cast

import before
from pictures import Images
from pipeline_devices import devices, show_devices
from pipeline_world import (
    ENERGY,
    Case,
    Device,
    MemoryStore,
    NoMeter,
    apart,
    images_of,
    memory,
    reset_peak,
)

from cluster.pipeline.encode import encode_batch
from cluster.pipeline.parquet import shard_parquet
from cluster.pipeline.shard_runner import ShardRunner
from cluster.pipeline.stages import Lane
from cluster.storage.object_store import ObjectStore
from cluster.types import ImageEncoding, Shard

KINDS: list[tuple[ImageEncoding, str | None]] = [
    ("png", None), ("jpeg", None), ("webp", None),
    ("raw", "none"), ("raw", "lz4"), ("raw", "zstd"),
]  # fmt: skip
MB = 2**20


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
    reset_peak()
    grown_from, store.size_bytes = memory("VmRSS"), 0
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
        "peak_mb": max(0.0, memory("VmHWM") - grown_from) / MB,
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


def table(seconds: float, rounds: int, encodings: Collection[str]) -> list[dict[str, Any]]:
    """A row for each case of these encodings, medians of the rounds, interleaved."""
    pictures = {name: apart(images_of, name) for name in ("bundled-32", "natural-32", "natural-64")}
    cases = [
        Case(name, encoding, compression, threads)
        for name in pictures
        for encoding, compression in KINDS
        for threads in (1, 2)
        if encoding in encodings
    ]
    if "raw" in encodings:
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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--rounds", type=int, default=3)
    known = list(dict.fromkeys(encoding for encoding, _ in KINDS))
    parser.add_argument("--encodings", nargs="+", choices=known, default=known)
    parser.add_argument("--devices", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.devices:
        rows = devices(4 * options.seconds)
    else:
        rows = table(options.seconds, options.rounds, options.encodings)
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


if __name__ == "__main__":
    main()
