"""The path from pixels to Parquet as it stood before: the peer of benchmarks and
the oracle of tests.

A Python object an image, libdeflate's PNG, pyarrow's writer, zstd for raw images, one encoder
thread, one shard encoded and uploaded at a time while the next is generated.
"""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from simplejpeg import encode_jpeg

from cluster.pipeline.shard_runner import Sampler
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import Energy, ImageEncoding, Shard, Workload

Images = NDArray[np.uint8]
SUFFIX = {"png": "png", "webp": "webp", "jpeg": "jpg", "raw": "ppm"}
REPEATING = [
    *("job_id", "class_id", "label", "seed", "model", "model_rev", "width", "height"),
    *("energy_j", "energy_low_j", "energy_high_j", "energy_quality", "hardware"),
]
ORDERED = [*IMAGE_SCHEMA.names[1:]]
ENERGY = Energy(energy_mj=1, quality="measured_counter", method="none")


def encode(batch: Images, encoding: ImageEncoding) -> list[bytes]:
    """A file of each image (B, H, W, 3)."""
    if encoding == "raw":
        header = b"P6 %d %d 255\n" % (batch.shape[2], batch.shape[1])
        return [header + picture.tobytes() for picture in batch]
    if encoding == "jpeg":
        return [encode_jpeg(picture, quality=95, colorsubsampling="444") for picture in batch]
    if encoding == "webp":
        return [_saved(picture, format="WEBP", lossless=True, method=0) for picture in batch]
    return encode_png(batch)


def _saved(picture: Images, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, **options)
    return buffer.getvalue()


def encode_png(batch: Images, compress: Callable[[Any], bytes] | None = None) -> list[bytes]:
    """The filter Sub for all rows, and a zlib stream: libdeflate's of level 3, or another."""
    compress = compress or partial(import_module("deflate").zlib_compress, compresslevel=3)
    count, height, width, _ = batch.shape
    pixels = batch.reshape(count, height, 3 * width)
    rows = np.empty((count, height, 1 + 3 * width), dtype=np.uint8)
    rows[:, :, 0] = 1
    rows[:, :, 1:4] = pixels[:, :, :3]
    np.subtract(pixels[:, :, 3:], pixels[:, :, :-3], out=rows[:, :, 4:])
    head = b"\x89PNG\r\n\x1a\n" + _chunk(
        b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    )
    end = _chunk(b"IEND", b"")
    return [head + _chunk(b"IDAT", compress(part)) + end for part in rows]


def _chunk(kind: bytes, data: bytes) -> bytes:
    named = kind + data
    return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))


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


def run(
    workload: Workload, sampler: Sampler, shards: Sequence[Shard], put: Callable[[bytes], None]
) -> None:
    """The shards, one generating while the last is encoded, written and put."""
    with ThreadPoolExecutor(1) as encoder, ThreadPoolExecutor(1) as publisher:
        last: Future[None] | None = None
        for shard in shards:
            class_ids = workload.classes_of(shard.start, shard.stop)
            tiles = sampler.generate_tiles(workload.seed, shard.start, class_ids)
            parts = [encoder.submit(encode, images, workload.encoding) for _, images in tiles]
            if last is not None:
                last.result()
            last = publisher.submit(_publish, workload, shard, parts, put)
        if last is not None:
            last.result()


def _publish(
    workload: Workload,
    shard: Shard,
    parts: list[Future[list[bytes]]],
    put: Callable[[bytes], None],
) -> None:
    encoded = [image for part in parts for image in part.result()]
    table = pyarrow_table(workload, shard, encoded, ENERGY, "test")
    data = pyarrow_file(table, workload.encoding, sum(map(len, encoded)))
    hashlib.sha256(data).hexdigest()
    put(data)
