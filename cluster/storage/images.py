"""Pictures to bytes and back, and a shard of them as one Parquet file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image
from simplejpeg import encode_jpeg

from cluster.errors import UserError
from cluster.pipeline.png import encode_png
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import Energy, ImageEncoding, Shard, Workload

# CPU per 32 px | 64 px picture of natural statistics, and its size, on one 2.x GHz x86 core:
#   png     27 |  94 us   3.0 | 10.8 kB   lossless; ours: Pillow takes 80 | 390 us to save 5%
#   webp    77 | 142 us   2.4 |  8.7 kB   lossless; method 4 costs 3.4 ms to save another 1%
#   jpeg    11 |  48 us   1.9 |  5.2 kB   36 dB; full-resolution colour, which small pictures need
_SAVE_OPTIONS: dict[ImageEncoding, dict[str, Any]] = {
    "webp": {"format": "WEBP", "lossless": True, "method": 0},
}
_SUFFIX: dict[ImageEncoding, str] = {"png": "png", "webp": "webp", "jpeg": "jpg", "raw": "ppm"}

_ROW_GROUP_BYTES = 16 << 20
_MAX_SHARD_BYTES = 2**31 - 1  # offsets of an Arrow binary column are 32 bits wide
_REPEATING = [
    *("job_id", "class_id", "label", "seed", "model", "model_rev", "width", "height"),
    *("energy_j", "energy_low_j", "energy_high_j", "energy_quality", "hardware"),
]
_TYPES = {field.name: field.type for field in IMAGE_SCHEMA}
_ORDERED = [*IMAGE_SCHEMA.names[1:]]  # every column but ``image`` has useful statistics


def encode_images(batch: NDArray[np.uint8], encoding: ImageEncoding) -> list[bytes]:
    """Encode pictures (B, H, W, 3), RGB, each into a file of its own.

    ``png`` and ``webp`` are lossless, ``jpeg`` is quality 95. ``raw`` is a binary PPM: the bare
    pixels after a header of some 13 bytes, so that every value has one size and yet anything
    that reads pictures reads it. Codecs leave the GIL: threads may encode a batch each.
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
        raise ValueError(f"images are {batch.dtype} {batch.shape}; expected uint8 (B, H, W, 3)")
    if encoding == "raw":
        header = b"P6 %d %d 255\n" % (batch.shape[2], batch.shape[1])
        return [header + picture.tobytes() for picture in batch]
    if encoding == "png":
        return encode_png(batch)
    if encoding == "jpeg":
        return [
            encode_jpeg(picture, quality=95, colorsubsampling="444")
            for picture in np.ascontiguousarray(batch)
        ]
    encoded = []
    for picture in batch:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, **_SAVE_OPTIONS[encoding])
        encoded.append(buffer.getvalue())
    return encoded


def decode_image(row: Mapping[str, Any]) -> Image.Image:
    """The RGB picture of a row that has the ``image`` column.

    Raises ValueError when its bytes are not a whole picture.
    """
    data = (row["image"] or {}).get("bytes")
    if data is None:
        raise ValueError("has no picture")
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:  # damaged data makes codecs raise nearly anything
        raise ValueError(f"does not decode: {error}") from error


def shard_parquet(
    workload: Workload,
    shard: Shard,
    class_ids: NDArray[np.int64],
    encoded: Sequence[bytes],
    energy: Energy,
    hardware: str,
) -> bytes:
    """The shard's pictures as a Parquet file, ``IMAGE_SCHEMA``, one row each in index order.

    class_ids: (rows,); encoded: the pictures as ``encode_images`` returns them; energy: of the
    whole shard, of which each row carries an equal part. Equal input gives equal bytes.
    """
    if not shard.rows == len(class_ids) == len(encoded):
        raise ValueError(
            f"shard {shard.index} of {shard.job_id} has {shard.rows} rows, not "
            f"{len(class_ids)} class ids and {len(encoded)} images"
        )
    total = sum(map(len, encoded))
    if total > _MAX_SHARD_BYTES:
        raise UserError(
            f"shard {shard.index} of job {shard.job_id} holds {total} bytes of images; "
            f"a file takes 2 GiB: lower shard_images from {workload.shard_images}"
        )
    columns = row_columns(workload, shard, class_ids, hardware)
    columns |= _energy_columns(energy, shard.rows)
    columns["image"] = _pictures(encoded, columns["image_id"], workload.encoding)
    table = pa.table([columns[name] for name in IMAGE_SCHEMA.names], schema=IMAGE_SCHEMA)
    sink = pa.BufferOutputStream()
    pq.write_table(
        table,
        sink,
        row_group_size=max(1, _ROW_GROUP_BYTES * shard.rows // max(total, 1)),
        compression=_compression(workload.encoding),
        use_dictionary=_REPEATING,
        write_statistics=_ORDERED,
    )
    return bytes(sink.getvalue())


def _compression(encoding: ImageEncoding) -> dict[str, str]:
    columns = dict.fromkeys([*_ORDERED, "image.path"], "ZSTD")
    return columns | {"image.bytes": "ZSTD" if encoding == "raw" else "NONE"}


def row_columns(
    workload: Workload, shard: Shard, class_ids: NDArray[np.int64], hardware: str
) -> dict[str, pa.Array]:
    """The shard's columns that follow from the job alone: all but the picture and its energy."""
    indices = range(shard.start, shard.stop)
    varying: dict[str, Any] = {
        "image_id": [f"{shard.job_id}-{index:010d}" for index in indices],
        "index": np.arange(shard.start, shard.stop, dtype=np.int64),
        "class_id": class_ids,
        "label": [workload.label_of(int(class_id)) for class_id in class_ids],
    }
    constant: dict[str, Any] = {
        "job_id": shard.job_id,
        "seed": workload.seed,
        "model": workload.model,
        "model_rev": workload.model_rev,
        "width": workload.width,
        "height": workload.height,
        "hardware": hardware,
    }
    columns = {name: pa.array(values, _TYPES[name]) for name, values in varying.items()}
    for name, value in constant.items():
        columns[name] = pa.repeat(pa.scalar(value, _TYPES[name]), shard.rows)
    return columns


def _energy_columns(energy: Energy, rows: int) -> dict[str, pa.Array]:
    def part_j(whole_mj: int | None) -> pa.Scalar:
        return pa.scalar(None if whole_mj is None else whole_mj / (1000 * rows), pa.float64())

    values = {
        "energy_j": part_j(energy.energy_mj),
        "energy_low_j": part_j(energy.low_mj),
        "energy_high_j": part_j(energy.high_mj),
        "energy_quality": pa.scalar(energy.quality, pa.string()),
    }
    return {name: pa.repeat(value, rows) for name, value in values.items()}


def _pictures(encoded: Sequence[bytes], names: pa.Array, encoding: ImageEncoding) -> pa.Array:
    paths = pc.binary_join_element_wise(names, _SUFFIX[encoding], ".")
    return pa.StructArray.from_arrays([pa.array(encoded, pa.binary()), paths], ["bytes", "path"])
