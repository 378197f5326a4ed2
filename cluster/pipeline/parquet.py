"""A shard's encoded images as one Parquet file."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.pipeline.encoded import Encoded
from cluster.storage.chunks import Chunks
from cluster.storage.image_rows import row_columns
from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import Energy, ImageEncoding, Shard, Workload

_SUFFIX: dict[ImageEncoding, str] = {"png": "png", "webp": "webp", "jpeg": "jpg", "raw": "ppm"}


_ROW_GROUP_BYTES = 16 << 20
_MAX_SHARD_BYTES = 2**31 - 1  # offsets of an Arrow binary column are 32 bits wide
_REPEATING = [
    *("job_id", "class_id", "label", "seed", "model", "model_rev", "width", "height"),
    *("energy_j", "energy_low_j", "energy_high_j", "energy_quality", "hardware"),
]
_ORDERED = [*IMAGE_SCHEMA.names[1:]]  # every column but ``image`` has useful statistics


def shard_parquet(
    workload: Workload,
    shard: Shard,
    class_ids: NDArray[np.int64],
    parts: Sequence[Encoded],
    energy: Energy,
    hardware: str,
) -> Chunks:
    """The shard's images as a Parquet file, ``IMAGE_SCHEMA``, one row each in index order.

    class_ids: (rows,); parts: the images, in order; energy: of the whole shard; each row carries
    an equal part. Equal input gives equal bytes.
    """
    encoded = [part.file(row) for part in parts for row in range(len(part))]
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
    return Chunks([sink.getvalue()])


def _compression(encoding: ImageEncoding) -> dict[str, str]:
    columns = dict.fromkeys([*_ORDERED, "image.path"], "ZSTD")
    return columns | {"image.bytes": "ZSTD" if encoding == "raw" else "NONE"}


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
