"""Rows of the image table: the columns that follow from the job, and decoding of the image."""

from __future__ import annotations

import io
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from cluster.storage.schemas import IMAGE_SCHEMA
from cluster.types import Energy, Shard, Workload

_TYPES = {field.name: field.type for field in IMAGE_SCHEMA}
_DIGITS = 4  # of an image's number that come from a table
_TABLE = 10**_DIGITS


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


def id_blocks(
    job_id: str, start: int, stop: int, suffix: str = "", *, margin: int = 0
) -> list[NDArray[np.uint8]]:
    """The ids of images start..stop-1, and a suffix: UTF-8, one row each, (rows, margin + bytes).

    Ten digits; from image 10^10 on the number has more. Blocks have one length each. margin: bytes
    in front of each that are left to the caller to fill.
    """
    blocks = []
    while start < stop:
        end = min(stop, start - start % _TABLE + _TABLE)
        head = f"{job_id}-{start // _TABLE:0{10 - _DIGITS}d}".encode()
        digits = margin + len(head)
        tail = digits + _DIGITS
        block = np.empty((end - start, tail + len(suffix.encode())), np.uint8)
        block[:, margin:digits] = np.frombuffer(head, np.uint8)
        block[:, digits:tail] = _last_digits()[start % _TABLE :][: end - start]
        block[:, tail:] = np.frombuffer(suffix.encode(), np.uint8)
        blocks.append(block)
        start = end
    return blocks


@cache
def _last_digits() -> NDArray[np.uint8]:
    """0000 to 9999 as text, (10000, 4)."""
    powers = 10 ** np.arange(_DIGITS - 1, -1, -1)
    return (np.arange(_TABLE)[:, None] // powers % 10 + ord("0")).astype(np.uint8)


def constant_values(workload: Workload, hardware: str) -> dict[str, Any]:
    """What is the same in all rows of a job that were made on this hardware."""
    return {
        "job_id": workload.job_id,
        "seed": workload.seed,
        "model": workload.model,
        "model_rev": workload.model_rev,
        "width": workload.width,
        "height": workload.height,
        "hardware": hardware,
    }


def energy_values(energy: Energy, rows: int) -> dict[str, Any]:
    """What rows carry of the energy of all of them: equal parts, None where it is unknown."""

    def part_j(whole_mj: int | None) -> float | None:
        return None if whole_mj is None else whole_mj / (1000 * rows)

    return {
        "energy_j": part_j(energy.energy_mj),
        "energy_low_j": part_j(energy.low_mj),
        "energy_high_j": part_j(energy.high_mj),
        "energy_quality": energy.quality,
    }


def row_columns(
    workload: Workload, shard: Shard, class_ids: NDArray[np.int64], hardware: str
) -> dict[str, pa.Array]:
    """The shard's columns that follow from the job alone: all but the image and its energy."""
    blocks = id_blocks(shard.job_id, shard.start, shard.stop)
    varying: dict[str, Any] = {
        "image_id": [bytes(row).decode() for block in blocks for row in block],
        "index": np.arange(shard.start, shard.stop, dtype=np.int64),
        "class_id": class_ids,
        "label": [workload.label_of(int(class_id)) for class_id in class_ids],
    }
    columns = {name: pa.array(values, _TYPES[name]) for name, values in varying.items()}
    for name, value in constant_values(workload, hardware).items():
        columns[name] = pa.repeat(pa.scalar(value, _TYPES[name]), shard.rows)
    return columns
