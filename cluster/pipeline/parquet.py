"""A shard's encoded images as one Parquet file.

Written by us, because images are already what a page holds (``Encoded``): pages are slices of the
encoders' buffers, and columns that say the same in every row cost the same whatever the rows
(docs/adr/0014-parquet-writer.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cluster.errors import UserError
from cluster.pipeline.encoded import LENGTH_BYTES, Encoded
from cluster.pipeline.parquet_codecs import pays
from cluster.pipeline.parquet_file import parquet_file
from cluster.pipeline.parquet_given import given
from cluster.pipeline.parquet_pages import Column, chosen, constant, files, sequence, texts
from cluster.storage.chunks import Chunks
from cluster.storage.image_rows import constant_values, energy_values, id_blocks
from cluster.storage.job_rows import JobRows
from cluster.storage.schemas import IMAGE_SCHEMA, image_schema
from cluster.types import Compression, Energy, ImageEncoding, Shard, Workload

_SUFFIX: dict[ImageEncoding, str] = {"png": "png", "webp": "webp", "jpeg": "jpg", "raw": "ppm"}
_FORMATS = {pa.int32(): "<i", pa.int64(): "<q", pa.uint64(): "<Q", pa.float64(): "<d"}

_ROW_GROUP_BYTES = 16 << 20
_PAGE_PIXEL_BYTES = 1 << 20
_MAX_SHARD_BYTES = 2**31 - 1  # so that the images fit in one Arrow binary column

Columns = dict[str, tuple[Column, Compression]]


def shard_parquet(
    workload: Workload,
    shard: Shard,
    class_ids: NDArray[np.int64],
    parts: Sequence[Encoded],
    energy: Energy,
    hardware: str,
    rows: JobRows | None = None,
) -> Chunks:
    """The shard's images as a Parquet file, ``IMAGE_SCHEMA``, one row each in index order.

    class_ids: (rows,). parts: the images, in order; the file may hold slices of their buffers,
    which must not be written to afterwards. rows: of a job of rows: what each image carries on, in
    columns after the others, and its seed. energy: of the whole shard; each row carries an equal
    part. Equal images give equal bytes, however they are cut into parts.
    Raises UserError for more images than a file takes.
    """
    images = sum(map(len, parts))
    if not shard.rows == len(class_ids) == images:
        raise ValueError(
            f"shard {shard.index} of {shard.job_id} has {shard.rows} rows, not "
            f"{len(class_ids)} class ids and {images} images"
        )
    total = sum(part.file_bytes for part in parts)
    if total > _MAX_SHARD_BYTES:
        raise UserError(
            f"shard {shard.index} of job {shard.job_id} holds {total} bytes of images; "
            f"a file takes 2 GiB: lower shard_images from {workload.shard_images}"
        )
    same = constant_values(workload, hardware) | energy_values(energy, shard.rows)
    varying = {}
    if rows is not None:
        if rows.carried is not None:
            varying = {name: rows.carried[name] for name in rows.carried.column_names}
        if rows.seeds is not None:
            del same["seed"]
            varying["seed"] = pa.chunked_array([pa.array(rows.seeds, pa.uint64())])
    carried = () if rows is None or rows.carried is None else rows.carried.schema
    schema = image_schema(carried) if carried else IMAGE_SCHEMA
    groups = _row_groups(workload, shard, class_ids, parts, same, varying, total)
    return parquet_file(schema, groups)


def _row_groups(
    workload: Workload,
    shard: Shard,
    class_ids: NDArray[np.int64],
    parts: Sequence[Encoded],
    same: dict[str, Any],
    varying: dict[str, pa.ChunkedArray],
    total: int,
) -> Iterator[Columns]:
    page_rows = max(1, _PAGE_PIXEL_BYTES // (3 * workload.width * workload.height))
    rows = max(1, _ROW_GROUP_BYTES * shard.rows // max(total, 1))
    rows = max(rows - rows % page_rows, min(rows, page_rows))  # whole pages
    class_values, class_picks, label_values, label_picks = _classes(workload, class_ids)
    plain = {name: _plain(name, value) for name, value in same.items()}
    suffix = f".{_SUFFIX[workload.encoding]}"
    for first in range(0, shard.rows, rows):
        last = min(first + rows, shard.rows)
        start, stop = shard.start + first, shard.start + last
        names = id_blocks(shard.job_id, start, stop, margin=LENGTH_BYTES)
        paths = id_blocks(shard.job_id, start, stop, suffix, margin=LENGTH_BYTES)
        pictures = files(parts, first, last, page_rows)
        columns: Columns = {
            "image.bytes": (pictures, _codec(workload, pictures)),
            "image.path": (texts(paths, level=2), "zstd"),
            "image_id": (texts(names), "zstd"),
            "index": (sequence(start, stop), "none"),
            "class_id": (chosen(class_values, class_picks[first:last], text=False), "none"),
            "label": (chosen(label_values, label_picks[first:last], text=True), "none"),
        }
        for name, value in plain.items():
            text = IMAGE_SCHEMA.field(name).type == pa.string()
            columns[name] = (constant(value, last - first, text=text), "none")
        for name, values in varying.items():
            columns[name] = (given(values[first:last]), "zstd")
        yield columns


def _codec(workload: Workload, pictures: Column) -> Compression:
    """How the images of a row group are compressed."""
    codec = workload.page_compression
    return codec if codec != "none" and pays(pictures.pages, codec) else "none"


def _plain(name: str, value: Any) -> bytes | None:
    """In Parquet's encoding PLAIN, texts without their length."""
    if value is None:
        return None
    kind = IMAGE_SCHEMA.field(name).type
    return value.encode() if kind == pa.string() else struct.pack(_FORMATS[kind], value)


def _classes(
    workload: Workload, class_ids: NDArray[np.int64]
) -> tuple[list[bytes], NDArray[np.int64], list[bytes], NDArray[np.int64]]:
    """The class ids there are, which of them each row has, and the same for labels (-1: none)."""
    ids, picks = np.unique(class_ids, return_inverse=True)
    labels = [workload.label_of(int(class_id)) for class_id in ids]
    values = sorted({label.encode() for label in labels if label is not None})
    place = {value: number for number, value in enumerate(values)}
    of_class = [-1 if label is None else place[label.encode()] for label in labels]
    return (
        [struct.pack("<q", class_id) for class_id in ids],
        picks,
        values,
        np.array(of_class, np.int64)[picks],
    )
