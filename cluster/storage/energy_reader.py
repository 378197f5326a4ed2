"""Reading the energy log: its files by day, as a data set, and what it has to answer for."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from cluster.storage.arrow_files import arrow_file_system
from cluster.storage.energy_rows import footer_of
from cluster.storage.layout import (
    ENERGY,
    EnergyKey,
    energy_of_day,
    energy_of_host,
    parse_day,
    parse_energy_key,
)
from cluster.storage.object_store import ObjectStore
from cluster.storage.schemas import ENERGY_SCHEMA

_THREADS = 8
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class EnergyFile:
    """A file of the energy log: the latest version of its segment."""

    name: EnergyKey
    size_bytes: int

    @property
    def key(self) -> str:
        return self.name.key


def energy_files(
    store: ObjectStore, since: datetime | None = None, until: datetime | None = None
) -> list[EnergyFile]:
    """The files that may hold rows of that time, in order of day; all of them by default.

    Only the prefixes of those days are listed. A row is filed under the UTC day it begins on, so
    the day before ``since`` is among them. Times have a zone; ``until`` is exclusive.
    """
    first = date.min if since is None else since.astimezone(UTC).date() - _DAY
    last = date.max if until is None else until.astimezone(UTC).date()
    names = [name.removeprefix("date=") for name in store.list_dirs(ENERGY)]
    days = [day for day in map(parse_day, names) if day is not None and first <= day <= last]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda day: _latest(store, energy_of_day(day)), days)
        return [file for files in found for file in files]


def energy_dataset(
    store: ObjectStore, since: datetime | None = None, until: datetime | None = None
) -> pads.Dataset:
    """The rows of ``energy_files``, as columns of ``ENERGY_SCHEMA``.

    Each file knows its day and host: a filter on ``ts_start`` or ``host_name`` leaves the others
    unread. The bounds choose files, not rows: filter rows by ``ts_start`` and ``ts_end``.
    """
    return dataset_of(store, energy_files(store, since, until))


def dataset_of(store: ObjectStore, files: Iterable[EnergyFile]) -> pads.Dataset:
    """These files as a data set."""
    file_system = arrow_file_system(store.config)
    parquet = pads.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(file.key, file_system, partition_expression=_holds(file.name))
        for file in files
    ]
    return pads.FileSystemDataset(fragments, ENERGY_SCHEMA, parquet, file_system)


def closure_error_mj(store: ObjectStore, files: Iterable[EnergyFile]) -> int:
    """By how many millijoules rows and meters differ: 0, or something is broken.

    The sum over the files of what separates the sum of a file's rows from the readings' totals
    in its footer. Reads one column.
    """
    file_system = arrow_file_system(store.config)

    def error_mj(file: EnergyFile) -> int:
        with file_system.open_input_file(file.key) as source:
            parquet = pq.ParquetFile(source)
            totals, _ = footer_of(parquet.metadata.metadata or {})
            rows = parquet.read(["energy_mj"])["energy_mj"]
            return abs(totals.total() - (pc.sum(rows).as_py() or 0))

    with ThreadPoolExecutor(_THREADS) as pool:
        return sum(pool.map(error_mj, files))


def open_ends(store: ObjectStore, host: str, cluster_id: str, now: datetime) -> dict[str, datetime]:
    """Where the host's log breaks off: hw_id to the end of its last row.

    Only of devices whose last writer did not end in good order, and not long ago: a node's new
    meter calls the time since then a gap. Looks at the UTC day of ``now`` and the one before.
    """
    today = now.astimezone(UTC).date()
    files = [f for d in (today - _DAY, today) for f in _latest(store, energy_of_host(d, host))]
    file_system = arrow_file_system(store.config)
    closed_writers: set[str] = set()
    for file in files:
        with file_system.open_input_file(file.key) as source:
            if footer_of(pq.read_metadata(source).metadata or {})[1]:
                closed_writers.add(file.name.writer)
    mine = pads.field("cluster_id") == cluster_id
    ends: dict[str, tuple[datetime, bool]] = {}
    for file in files:
        table = dataset_of(store, [file]).to_table(["hw_id", "ts_end"], filter=mine)
        last = table.group_by("hw_id").aggregate([("ts_end", "max")])
        for row in last.to_pylist():
            end = (row["ts_end_max"], file.name.writer in closed_writers)
            ends[row["hw_id"]] = max(end, ends.get(row["hw_id"], end))
    return {hw_id: end for hw_id, (end, closed) in ends.items() if not closed}


def _latest(store: ObjectStore, prefix: str) -> list[EnergyFile]:
    """The latest version of every segment there."""
    latest: dict[EnergyKey, EnergyFile] = {}
    for info in store.list(prefix):
        name = parse_energy_key(info.key)
        if name is not None:
            segment = replace(name, version=0)
            if segment not in latest or name > latest[segment].name:
                latest[segment] = EnergyFile(name, info.size_bytes)
    return list(latest.values())


def _holds(name: EnergyKey) -> pads.Expression:
    start = datetime.combine(name.day, day_time(), UTC)
    day = pa.scalar(start, pa.timestamp("us", tz="UTC"))
    ts_start = pads.field("ts_start")
    end = pc.add(day, pa.scalar(_DAY, pa.duration("us")))
    return (ts_start >= day) & (ts_start < end) & (pads.field("host_name") == name.host)
