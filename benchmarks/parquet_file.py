"""What a shard's Parquet file costs: ours, and pyarrow's writer in its place, by CPU time and size.

From pixels to a digest of the file, one thread: encode as raw, write the file, SHA-256. ``before``
is the way that stood until 2026-11: a Python object an image, columns of pyarrow, its writer with
zstd level 1. Beside them what the bytes alone cost: copying, digesting, compressing. Images: of the
bundled model; of natural (1/f) statistics with a little noise; and the same at low contrast, which
has no repeats but few values. Rounds interleaved, medians.

    python benchmarks/parquet_file.py [--count 8192] [--rounds 7] [--json]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import before
import numpy as np
import pyarrow as pa
from pictures import Images, bundled, natural

from cluster.pipeline.encode import encode_batch
from cluster.pipeline.encoded import Encoded
from cluster.pipeline.parquet import shard_parquet
from cluster.types import Energy, Workload
from un0.catalog import DEFAULT_MODEL

TILE = 1024
STAGES = ("encode_us", "write_us", "digest_us")
ENERGY = Energy(energy_mj=5000, quality="measured_counter", method="benchmark")


def workload(images: Images, **changes: Any) -> Workload:
    count, height, width, _ = images.shape
    return Workload(
        job_id="20261128T120000-a1b2c3", model=DEFAULT_MODEL, model_rev="0" * 64, count=count,
        seed=0, shard_images=count, class_ids=tuple(range(10)),
        labels=tuple(f"class {number}" for number in range(10)), width=width, height=height,
        encoding="raw", **changes,
    )  # fmt: skip


def ways(images: Images) -> dict[str, list[Callable[[Any], Any]]]:
    """Stages by name: encode, write, digest; each takes what the one before it gave."""
    tiles = [images[at : at + TILE] for at in range(0, len(images), TILE)]
    shard = workload(images).shard(0)

    def objects(_: Any) -> list[bytes]:
        return [file for tile in tiles for file in before.encode(tile, "raw")]

    def by_pyarrow(codec: str) -> Callable[[list[bytes]], bytes]:
        def write(files: list[bytes]) -> bytes:
            table = before.pyarrow_table(workload(images), shard, files, ENERGY, "benchmark")
            return before.pyarrow_file(table, "raw", sum(map(len, files)), codec)

        return write

    def parts(_: Any) -> list[Encoded]:
        return [encode_batch(tile, "raw") for tile in tiles]

    def ours(compression: str) -> Callable[[list[Encoded]], Any]:
        job = workload(images, compression=compression)
        classes = job.classes_of(0, job.count)
        return lambda given: shard_parquet(job, shard, classes, given, ENERGY, "benchmark")

    def digest(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    found: dict[str, list[Callable[[Any], Any]]] = {
        "before (pyarrow, zstd 1)": [objects, by_pyarrow("ZSTD"), digest],
        "pyarrow, none": [objects, by_pyarrow("NONE"), digest],
    }
    for compression in ("none", "lz4", "zstd"):
        found[f"ours, {compression}"] = [parts, ours(compression), lambda file: file.sha256()]
    found["alone: copy"] = [lambda _: images, np.copy]
    found["alone: sha256"] = [lambda _: images, digest]
    found["alone: zstd 1"] = [lambda _: images, pa.Codec("zstd", 1).compress]
    found["alone: lz4"] = [lambda _: images, pa.Codec("lz4_raw").compress]
    return found


def measure(name: str, images: Images, rounds: int) -> list[dict[str, Any]]:
    stages = ways(images)
    spent: dict[str, list[list[float]]] = {way: [] for way in stages}
    size: dict[str, float] = {}
    for _ in range(rounds):
        for way, steps in stages.items():
            value, seconds = None, []
            for number, step in enumerate(steps):
                begin_s = time.process_time()
                value = step(value)
                seconds.append(time.process_time() - begin_s)
                if number == 1 and not isinstance(value, str):
                    size[way] = getattr(value, "size_bytes", None) or memoryview(value).nbytes
            spent[way].append([1e6 * second / len(images) for second in seconds])
    rows = []
    peer = statistics.median(map(sum, next(iter(spent.values()))))
    for way, each in spent.items():
        whole = statistics.median(map(sum, each))
        stage = [statistics.median(column) for column in zip(*each, strict=True)]
        rows.append(
            {
                "pictures": name,
                "px": images.shape[1],
                "way": way,
                **dict(zip(STAGES, stage, strict=False)),
                "cpu_us_per_image": whole,
                "bytes_per_image": size[way] / len(images) if way in size else None,
                "speedup": None if way.startswith("alone") else peer / whole,
            }
        )
    return rows


def pictures(count: int) -> dict[str, Images]:
    """Images to write, by kind; a quarter as many of 64 px."""
    made = bundled(count)
    photos = natural(count, 32)
    dim = photos * 0.15 + 110 + np.random.default_rng(1).normal(0, 12, photos.shape)
    return {
        "bundled": made,
        "bundled x2": np.kron(made[: count // 4], np.ones((1, 2, 2, 1), np.uint8)),
        "natural": photos,
        "natural 64": natural(count // 4, 64),
        "low contrast": np.clip(dim, 0, 255).astype(np.uint8),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=8192)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = []
    for name, images in pictures(options.count).items():
        rows += measure(name, np.ascontiguousarray(images), options.rounds)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"load average {os.getloadavg()[0]:.1f}; CPU us an image")
    print(f"{'pictures':13} {'px':>3}  {'way':25} {'encode':>7} {'write':>7} {'digest':>7} "
          f"{'all':>7} {'bytes':>7} {'before /':>9}")  # fmt: skip
    for row in rows:
        cells = [row.get(name) for name in STAGES]
        shown = " ".join("       " if cell is None else f"{cell:7.2f}" for cell in cells)
        size = "" if row["bytes_per_image"] is None else f"{row['bytes_per_image']:.0f}"
        speedup = "" if row["speedup"] is None else f"{row['speedup']:.2f}"
        print(f"{row['pictures']:13} {row['px']:3}  {row['way']:25} {shown} "
              f"{row['cpu_us_per_image']:7.2f} {size:>7} {speedup:>9}")  # fmt: skip


if __name__ == "__main__":
    main()
