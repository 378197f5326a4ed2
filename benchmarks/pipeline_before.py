"""The path from pixels to Parquet as it stood before: the peer of ``pipeline.py``.

A Python object an image, libdeflate's PNG, pyarrow's writer, zstd for raw images, one encoder
thread, one shard encoded and uploaded at a time while the next is generated.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import deflate
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from simplejpeg import encode_jpeg

from cluster.pipeline.shard_runner import Sampler
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import ImageEncoding, Shard, Workload

Images = NDArray[np.uint8]
ROW_GROUP_BYTES = 16 << 20
REPEATING = [
    *("job_id", "class_id", "label", "seed", "model", "model_rev", "width", "height"),
    *("energy_j", "energy_low_j", "energy_high_j", "energy_quality", "hardware"),
]
ORDERED = IMAGE_SCHEMA.names[1:]


def encode(batch: Images, encoding: ImageEncoding) -> list[bytes]:
    """A file of each image (B, H, W, 3)."""
    if encoding == "raw":
        header = b"P6 %d %d 255\n" % (batch.shape[2], batch.shape[1])
        return [header + picture.tobytes() for picture in batch]
    if encoding == "jpeg":
        return [encode_jpeg(picture, quality=95, colorsubsampling="444") for picture in batch]
    return encode_png(batch)


def encode_png(batch: Images) -> list[bytes]:
    """The filter Sub for all rows, and libdeflate's level 3."""
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
    return [head + _chunk(b"IDAT", deflate.zlib_compress(part, 3)) + end for part in rows]


def _chunk(kind: bytes, data: bytes) -> bytes:
    named = kind + data
    return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))


def shard_parquet(
    workload: Workload, shard: Shard, class_ids: NDArray[np.int64], encoded: Sequence[bytes]
) -> bytes:
    """The shard's images as a Parquet file, by pyarrow's writer."""
    columns = _row_columns(workload, shard, class_ids)
    for name in ("energy_j", "energy_low_j", "energy_high_j"):
        columns[name] = pa.repeat(pa.scalar(0.001, pa.float64()), shard.rows)
    columns["energy_quality"] = pa.repeat(pa.scalar("estimated"), shard.rows)
    paths = pc.binary_join_element_wise(columns["image_id"], workload.encoding, ".")
    columns["image"] = pa.StructArray.from_arrays(
        [pa.array(encoded, pa.binary()), paths], ["bytes", "path"]
    )
    table = pa.table([columns[name] for name in IMAGE_SCHEMA.names], schema=IMAGE_SCHEMA)
    sink = pa.BufferOutputStream()
    raw = "ZSTD" if workload.encoding == "raw" else "NONE"
    pq.write_table(
        table,
        sink,
        row_group_size=max(1, ROW_GROUP_BYTES * shard.rows // sum(map(len, encoded))),
        compression=dict.fromkeys([*ORDERED, "image.path"], "ZSTD") | {"image.bytes": raw},
        use_dictionary=REPEATING,
        write_statistics=ORDERED,
    )
    return bytes(sink.getvalue())


def _row_columns(
    workload: Workload, shard: Shard, class_ids: NDArray[np.int64]
) -> dict[str, pa.Array]:
    types = {field.name: field.type for field in IMAGE_SCHEMA}
    indices = range(shard.start, shard.stop)
    varying = {
        "image_id": [f"{shard.job_id}-{index:010d}" for index in indices],
        "index": np.arange(shard.start, shard.stop, dtype=np.int64),
        "class_id": class_ids,
        "label": [workload.label_of(int(class_id)) for class_id in class_ids],
    }
    constant = {
        "job_id": shard.job_id,
        "seed": workload.seed,
        "model": workload.model,
        "model_rev": workload.model_rev,
        "width": workload.width,
        "height": workload.height,
        "hardware": "test",
    }
    columns = {name: pa.array(values, types[name]) for name, values in varying.items()}
    for name, value in constant.items():
        columns[name] = pa.repeat(pa.scalar(value, types[name]), shard.rows)
    return columns


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
            last = publisher.submit(_publish, workload, shard, class_ids, parts, put)
        if last is not None:
            last.result()


def _publish(
    workload: Workload,
    shard: Shard,
    class_ids: NDArray[np.int64],
    parts: list[Future[list[bytes]]],
    put: Callable[[bytes], None],
) -> None:
    encoded = [image for part in parts for image in part.result()]
    data = shard_parquet(workload, shard, class_ids, encoded)
    hashlib.sha256(data).hexdigest()
    put(data)
