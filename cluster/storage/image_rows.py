"""Rows of the image table: the columns that follow from the job, and decoding of the image."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import Shard, Workload

_TYPES = {field.name: field.type for field in IMAGE_SCHEMA}


def decode_image(row: Mapping[str, Any]) -> Image.Image:
    """The RGB image of a row that has the ``image`` column.

    Raises ValueError if its bytes are not a complete image.
    """
    data = (row["image"] or {}).get("bytes")
    if data is None:
        raise ValueError("has no picture")
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except Exception as error:  # damaged data makes codecs raise nearly anything
        raise ValueError(f"does not decode: {error}") from error


def row_columns(
    workload: Workload, shard: Shard, class_ids: NDArray[np.int64], hardware: str
) -> dict[str, pa.Array]:
    """The shard's columns that follow from the job alone: all but the image and its energy."""
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
