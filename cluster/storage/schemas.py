"""Columns of this project's Parquet files, and of the SQL views over them."""

from __future__ import annotations

import json
from collections.abc import Iterable

import pyarrow as pa

_STRING, _INT64, _DOUBLE = pa.string(), pa.int64(), pa.float64()
_UTC = pa.timestamp("us", tz="UTC")
_HUGGING_FACE = {"double": "float64", "float": "float32", "date32[day]": "date32"}
_ENERGY = [
    ("energy_j", _DOUBLE),
    ("energy_low_j", _DOUBLE),
    ("energy_high_j", _DOUBLE),
    ("energy_quality", _STRING),
]


def _hugging_face_metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    """Schema metadata with which the ``datasets`` library decodes the ``image`` column."""
    features: dict[str, dict[str, str]] = {}
    for field in schema:
        dtype = _HUGGING_FACE.get(str(field.type), str(field.type))
        features[field.name] = {"dtype": dtype, "_type": "Value"}
    features["image"] = {"_type": "Image"}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


def image_schema(carried: Iterable[pa.Field] = ()) -> pa.Schema:
    """``IMAGE_SCHEMA``, and after it the columns that a job's rows carry on."""
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", _STRING)])),
            ("image_id", _STRING),
            ("job_id", _STRING),
            ("index", _INT64),
            ("class_id", _INT64),
            ("label", _STRING),
            ("seed", pa.uint64()),
            ("model", _STRING),
            ("model_rev", _STRING),
            ("width", pa.int32()),
            ("height", pa.int32()),
            *_ENERGY,
            ("hardware", _STRING),
            *carried,
        ]
    )
    return schema.with_metadata(_hugging_face_metadata(schema))


IMAGE_SCHEMA: pa.Schema = image_schema()
"""One row per image, in index order. ``energy_j`` is the shard's energy over its rows: null
where unknown, with ``energy_low_j`` and ``energy_high_j`` where it is an estimate."""

COMMIT_SCHEMA: pa.Schema = pa.schema(
    [
        ("job_id", _STRING),
        ("shard", _INT64),
        ("start", _INT64),
        ("stop", _INT64),
        ("rows", _INT64),
        ("attempt_id", _STRING),
        ("keys", pa.list_(_STRING)),
        ("size_bytes", _INT64),
        *_ENERGY,
        ("energy_method", _STRING),
        ("model_rev", _STRING),
        ("hardware", _STRING),
        ("host_name", _STRING),
        ("generate_s", _DOUBLE),
        ("committed_at", _UTC),
    ]
)

JOB_SCHEMA: pa.Schema = pa.schema(
    [
        ("job_id", _STRING),
        ("state", _STRING),
        ("images", _INT64),
        ("count", _INT64),
        ("shards", _INT64),
        ("shard_images", _INT64),
        *_ENERGY,
        ("model", _STRING),
        ("model_rev", _STRING),
        ("seed", pa.uint64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("encoding", _STRING),
        ("precision", _STRING),
        ("owner", _STRING),
        ("submitted_at", _UTC),
    ]
)
