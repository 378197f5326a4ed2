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
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.pipeline.encode import encode_batch
from cluster.pipeline.encoded import LENGTH_BYTES, Encoded
from cluster.pipeline.parquet import shard_parquet
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import Energy, Shard, Workload
from un0.catalog import DEFAULT_MODEL

Images = NDArray[np.uint8]
TILE = 1024
STAGES = ("encode_us", "write_us", "digest_us")
ENERGY = Energy(energy_mj=5000, quality="measured_counter", method="benchmark")
SUFFIX = {"png": "png", "webp": "webp", "jpeg": "jpg", "raw": "ppm"}
REPEATING = [
    *("job_id", "class_id", "label", "seed", "model", "model_rev", "width", "height"),
    *("energy_j", "energy_low_j", "energy_high_j", "energy_quality", "hardware"),
]
ORDERED = [*IMAGE_SCHEMA.names[1:]]


def pyarrow_table(
    job: Workload, shard: Shard, files: list[bytes], energy: Energy, hardware: str
) -> pa.Table:
    """The rows of a shard, made by pyarrow from a Python object each."""
    indices = range(shard.start, shard.stop)
    class_ids = job.classes_of(shard.start, shard.stop)

    def part_j(whole_mj: int | None) -> float | None:
        return None if whole_mj is None else whole_mj / (1000 * shard.rows)

    varying: dict[str, Any] = {
        "image_id": [f"{job.job_id}-{index:010d}" for index in indices],
        "index": np.arange(shard.start, shard.stop, dtype=np.int64),
        "class_id": class_ids,
        "label": [job.label_of(int(class_id)) for class_id in class_ids],
    }
    constant = {
        "job_id": job.job_id,
        "seed": job.seed,
        "model": job.model,
        "model_rev": job.model_rev,
        "width": job.width,
        "height": job.height,
        "energy_j": part_j(energy.energy_mj),
        "energy_low_j": part_j(energy.low_mj),
        "energy_high_j": part_j(energy.high_mj),
        "energy_quality": energy.quality,
        "hardware": hardware,
    }
    kinds = {field.name: field.type for field in IMAGE_SCHEMA}
    columns = {name: pa.array(values, kinds[name]) for name, values in varying.items()}
    for name, value in constant.items():
        columns[name] = pa.repeat(pa.scalar(value, kinds[name]), shard.rows)
    paths = pc.binary_join_element_wise(columns["image_id"], SUFFIX[job.encoding], ".")
    columns["image"] = pa.StructArray.from_arrays(
        [pa.array(files, pa.binary()), paths], ["bytes", "path"]
    )
    return pa.table([columns[name] for name in IMAGE_SCHEMA.names], schema=IMAGE_SCHEMA)


def pyarrow_file(table: pa.Table, encoding: str, size_bytes: int, codec: str = "ZSTD") -> bytes:
    """The file as it was written until 2026-11. size_bytes: of all images."""
    sink = pa.BufferOutputStream()
    compression = dict.fromkeys([*ORDERED, "image.path"], "ZSTD")
    compression["image.bytes"] = codec if encoding == "raw" else "NONE"
    pq.write_table(
        table,
        sink,
        row_group_size=max(1, (16 << 20) * len(table) // max(size_bytes, 1)),
        compression=compression,
        use_dictionary=REPEATING,
        write_statistics=ORDERED,
    )
    return bytes(sink.getvalue())


def framed(tile: Images) -> Encoded:
    """The tile's images as PPM files: the least that has to be done to them."""
    header = b"P6 %d %d 255\n" % (tile.shape[2], tile.shape[1])
    size = len(header) + tile[0].size
    head = np.frombuffer(struct.pack("<I", size) + header, np.uint8)
    out = np.empty((len(tile), LENGTH_BYTES + size), np.uint8)
    out[:, : len(head)] = head
    out[:, len(head) :] = tile.reshape(len(tile), -1)
    return Encoded(out.reshape(-1), np.arange(len(tile) + 1) * out.shape[1])


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
        return [file for tile in tiles for file in encode_batch(tile, "raw").files()]

    def by_pyarrow(codec: str) -> Callable[[list[bytes]], bytes]:
        def write(files: list[bytes]) -> bytes:
            table = pyarrow_table(workload(images), shard, files, ENERGY, "benchmark")
            return pyarrow_file(table, "raw", sum(map(len, files)), codec)

        return write

    def parts(_: Any) -> list[Encoded]:
        return [framed(tile) for tile in tiles]

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
    before = statistics.median(map(sum, next(iter(spent.values()))))
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
                "speedup": None if way.startswith("alone") else before / whole,
            }
        )
    return rows


def pictures(count: int) -> dict[str, Images]:
    """Images to write, by kind; a quarter as many of 64 px."""
    sys.path.insert(0, str(Path(__file__).parent))
    from encoding import natural

    from un0 import Sampler, load_model  # only here: tests take the peer from this file

    sampler = Sampler(load_model(DEFAULT_MODEL), device="cpu")
    made = sampler.generate(0, 0, np.arange(count) % sampler.config.num_classes)
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
