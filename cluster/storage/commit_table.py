"""Commit records in columns: exact both ways, ten times as small as objects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from cluster.energy import sum_energy
from cluster.storage.schemas import COMMIT_SCHEMA
from cluster.types import CommitRecord, Energy

_STRING, _INT64 = pa.string(), pa.int64()
_OBJECT = pa.struct(
    [("key", _STRING), ("size_bytes", _INT64), ("sha256", _STRING), ("rows", _INT64)]
)
_ENERGY = pa.struct(
    [
        ("energy_mj", _INT64),
        ("low_mj", _INT64),
        ("high_mj", _INT64),
        ("quality", _STRING),
        ("method", _STRING),
    ]
)
TABLE_SCHEMA: pa.Schema = pa.schema(
    [
        ("job_id", _STRING),
        ("shard", _INT64),
        ("start", _INT64),
        ("stop", _INT64),
        ("attempt_id", _STRING),
        ("token", _STRING),
        ("objects", pa.list_(_OBJECT)),
        ("rows", _INT64),
        ("energy", _ENERGY),
        ("model_rev", _STRING),
        ("hardware", _STRING),
        ("host_name", _STRING),
        ("generate_s", pa.float64()),
        ("committed_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""The fields of a ``CommitRecord``, but its schema_version. Unknown energy is null."""


class Unfit(ValueError):
    """Records that columns cannot hold: a number beyond int64, a time without a zone."""


def table_of(records: Iterable[CommitRecord]) -> pa.Table:
    """The records as rows, by shard, each shard once. Raises Unfit."""
    rows = sorted({record.shard: record for record in records}.values(), key=lambda r: r.shard)
    if any(record.committed_at.utcoffset() is None for record in rows):
        raise Unfit("a time of commit has no time zone")
    columns = {name: [getattr(row, name) for row in rows] for name in TABLE_SCHEMA.names}
    columns["objects"] = [[dict(data) for data in objects] for objects in columns["objects"]]
    columns["energy"] = [dict(energy) for energy in columns["energy"]]
    try:
        return pa.table(columns, TABLE_SCHEMA)
    except (pa.ArrowException, OverflowError) as error:
        raise Unfit(str(error)) from error


def records_of(table: pa.Table) -> Iterator[CommitRecord]:
    """The rows as records, some hundred at a time. Raises ValueError where they are none."""
    for batch in table.to_batches(max_chunksize=512):
        yield from map(CommitRecord.model_validate, batch.to_pylist())


def merged(tables: Sequence[pa.Table]) -> pa.Table:
    """The rows of tables that share no shard, by shard."""
    return pa.concat_tables(tables).sort_by("shard").combine_chunks()


def shards_of(table: pa.Table) -> NDArray[np.int64]:
    """(rows,): the shards, in the order of the rows."""
    found: NDArray[np.int64] = table["shard"].to_numpy()
    return found


def images_of(table: pa.Table) -> int:
    return sum(table["rows"].to_pylist())


def objects_of(table: pa.Table) -> Iterator[tuple[str, int]]:
    """(key, size in bytes) of every object that the rows vouch for, in their order."""
    data = pc.list_flatten(table["objects"].combine_chunks())
    return zip(data.field("key").to_pylist(), data.field("size_bytes").to_pylist(), strict=True)


def energy_of(table: pa.Table) -> Energy:
    """What ``sum_energy`` makes of the rows' energies; exact."""
    column = table["energy"].combine_chunks()
    kinds = [column.field(name) for name in ("quality", "method")]
    known = [pc.is_valid(column.field(name)) for name in ("energy_mj", "low_mj", "high_mj")]
    groups = pa.table([*kinds, *known], ["quality", "method", "mj", "low", "high"])
    parts = []
    for kind in groups.group_by(groups.column_names).aggregate([]).to_pylist():
        same = [pc.equal(groups[name], value) for name, value in kind.items()]
        mask = same[0]
        for more in same[1:]:
            mask = pc.and_(mask, more)
        mj, low, high = (
            # Whole numbers of Python: their sum has no limit.
            sum(column.field(name).filter(mask).to_pylist()) if kind[short] else None
            for name, short in (("energy_mj", "mj"), ("low_mj", "low"), ("high_mj", "high"))
        )
        part = Energy(
            energy_mj=mj, low_mj=low, high_mj=high, quality=kind["quality"], method=kind["method"]
        )
        parts.append(part)
    return sum_energy(parts)


def commit_rows(table: pa.Table) -> pa.Table:
    """The rows as those of the SQL view ``commits``."""
    energy = table["energy"].combine_chunks()
    objects = table["objects"].combine_chunks()
    data = pc.list_flatten(objects)
    offsets = np.concatenate([[0], np.cumsum(pc.list_value_length(objects).to_numpy())])
    sizes = np.concatenate([[0], np.cumsum(data.field("size_bytes").to_numpy())])
    joules = {
        f"energy{short}_j": pc.divide(pc.cast(energy.field(name), pa.float64()), 1e3)
        for short, name in (("", "energy_mj"), ("_low", "low_mj"), ("_high", "high_mj"))
    }
    columns = {name: table[name] for name in COMMIT_SCHEMA.names if name in table.column_names}
    columns |= joules | {
        "keys": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), data.field("key")),
        "size_bytes": np.diff(sizes[offsets]),
        "energy_quality": energy.field("quality"),
        "energy_method": energy.field("method"),
    }
    return pa.table({name: columns[name] for name in COMMIT_SCHEMA.names}, COMMIT_SCHEMA)
