"""Rows of the ledger as Parquet: one file's columns, and what its meters said in all."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.ledger.sink import Origin
from cluster.ledger.usage import EnergyRow, Interval
from cluster.types import SCHEMA_VERSION

MeterTotals = Counter[tuple[str, int]]
"""Millijoules by (hw_id, meter_epoch)."""

_METERED, _CLOSED = b"un0.metered_mj", b"un0.closed"
_WORDS = [field.name for field in ENERGY_SCHEMA if field.type == pa.string()]
# Numbers rarely repeat, but neighbours are alike: as differences they are a sixth smaller, and a
# report, which reads little else, takes a third less CPU time
_NUMBERS = {
    field.name: "DELTA_BINARY_PACKED"
    for field in ENERGY_SCHEMA
    if pa.types.is_integer(field.type) or pa.types.is_timestamp(field.type)
}


def energy_table(rows: Sequence[EnergyRow], origin: Origin) -> pa.Table:
    """The rows as a table, ``ENERGY_SCHEMA``, in their order."""
    columns: dict[str, list[Any]] = {name: [] for name in ENERGY_SCHEMA.names}
    for row in rows:
        for name, value in _values(row, origin).items():
            columns[name].append(value)
    return pa.table(columns, schema=ENERGY_SCHEMA)


def metered_mj(rows: Iterable[EnergyRow]) -> MeterTotals:
    """What the meters said of the rows' intervals, counting each interval once.

    Taken from the readings, not from the rows' shares, so that the two can be compared.
    """
    intervals: dict[tuple[str, int, int], Interval] = {}
    for row in rows:
        interval = row.interval
        intervals[interval.device.hw_id, interval.epoch, interval.start_ns] = interval
    totals: MeterTotals = Counter()
    for (hw_id, epoch, _), interval in intervals.items():
        totals[hw_id, epoch] += interval.energy_mj or 0
    return totals


def energy_parquet(table: pa.Table, metered: MeterTotals, *, closed: bool = False) -> bytes:
    """A file of rows in order of time, with the meters' totals in its footer.

    closed: its writer ended in good order and will write no more.
    """
    file = EnergyParquet()
    file.write(table.sort_by([("ts_start", "ascending"), ("hw_id", "ascending")]))
    return file.finish(metered, closed=closed)


class EnergyParquet:
    """A file of the energy log that is written in pieces, each a row group."""

    def __init__(self) -> None:
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink,
            ENERGY_SCHEMA,
            compression="zstd",
            use_dictionary=_WORDS,
            column_encoding=_NUMBERS,
            store_schema=False,  # Parquet's own says all; Arrow's is half of the footer
        )

    def write(self, table: pa.Table) -> None:
        """The next row group."""
        self._writer.write_table(table)

    def finish(self, metered: MeterTotals, *, closed: bool = False) -> bytes:
        """The whole file, with the meters' totals in its footer."""
        totals = [[hw_id, epoch, mj] for (hw_id, epoch), mj in sorted(metered.items())]
        closing = {_CLOSED: b"1"} if closed else {}
        self._writer.add_key_value_metadata({_METERED: json.dumps(totals).encode(), **closing})
        self._writer.close()
        return bytes(self._sink.getvalue())


def footer_of(metadata: Mapping[bytes, bytes]) -> tuple[MeterTotals, bool]:
    """(the meters' totals, whether its writer ended in good order) of a file's metadata."""
    totals: MeterTotals = Counter()
    for hw_id, epoch, mj in json.loads(metadata.get(_METERED, b"[]")):
        totals[hw_id, epoch] += mj
    return totals, _CLOSED in metadata


def _values(row: EnergyRow, origin: Origin) -> dict[str, Any]:
    interval, device, work = row.interval, row.interval.device, row.work
    known = row.energy_mj is not None
    return {
        "schema_version": SCHEMA_VERSION,
        "cluster_id": origin.cluster_id,
        "host_name": origin.host,
        "hw_id": device.hw_id,
        "hw_type": device.hw_type,
        "hw_name": device.hw_name,
        "hw_parent": device.hw_parent,
        "zone": device.zone,
        "ts_start": origin.anchor.utc_at(interval.start_ns),
        "ts_end": origin.anchor.utc_at(interval.end_ns),
        "duration_ns": interval.duration_ns,
        "bucket": row.bucket,
        "shared": row.shared,
        "energy_mj": row.energy_mj,
        "energy_active_mj": row.active_mj,
        "energy_low_mj": row.low_mj,
        "energy_high_mj": row.high_mj,
        "quality": interval.quality if known else "missing",
        "method": interval.method,
        "meter_epoch": interval.epoch,
        "counter_updates": interval.counter_updates,
        "job_id": work.job_id,
        "shard": work.shard,
        "attempt_id": row.attempt_id,
        "images": row.images,
        "batch_size": row.batch_size,
        "steps": work.steps,
        "width": work.width,
        "height": work.height,
        "precision": work.precision,
        "model_rev": work.model_rev,
        "driver_version": device.driver_version,
        "power_limit_mw": device.power_limit_mw,
    }
