"""Columns of the energy log as Parquet, and of the view that it is queried through."""

from __future__ import annotations

import pyarrow as pa

_STRING, _INT64 = pa.string(), pa.int64()
_UTC = pa.timestamp("us", tz="UTC")

ENERGY_SCHEMA: pa.Schema = pa.schema(
    [
        ("schema_version", pa.int32()),
        ("cluster_id", _STRING),
        ("host_name", _STRING),
        ("hw_id", _STRING),
        ("hw_type", _STRING),
        ("hw_name", _STRING),
        ("hw_parent", _STRING),
        ("zone", _STRING),
        ("ts_start", _UTC),
        ("ts_end", _UTC),
        ("duration_ns", _INT64),
        ("bucket", _STRING),
        ("shared", pa.bool_()),
        ("energy_mj", _INT64),
        ("energy_active_mj", _INT64),
        ("energy_low_mj", _INT64),
        ("energy_high_mj", _INT64),
        ("quality", _STRING),
        ("method", _STRING),
        ("meter_epoch", _INT64),
        ("counter_updates", _INT64),
        ("job_id", _STRING),
        ("shard", _INT64),
        ("attempt_id", _STRING),
        ("images", _INT64),
        ("batch_size", pa.int32()),
        ("steps", pa.int32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("precision", _STRING),
        ("model_rev", _STRING),
        ("driver_version", _STRING),
        ("power_limit_mw", _INT64),
    ]
)
"""One row per device, interval and bucket, and in ``job``, ``wasted`` and ``overhead`` per attempt.
Null is unknown, or does not apply. The rows of an interval add up to what its meter said."""
