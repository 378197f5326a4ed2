"""Reading the energy log: its files by day, and its rows as a data set."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from datetime import time as day_time

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from cluster.errors import Fatal
from cluster.ledger.rows import footer_of
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.storage.arrow_files import arrow_file_system
from cluster.storage.commit import parse_record
from cluster.storage.layout import (
    ENERGY,
    EnergyKey,
    compaction_record,
    compactions_of,
    energy_of_host,
    energy_of_hosts,
    parse_compaction,
    parse_day,
    parse_energy_key,
)
from cluster.storage.object_store import ObjectStore
from cluster.types import Compaction

_THREADS = 8
_DAY = timedelta(days=1)


@dataclass(frozen=True)
class EnergyFile:
    """A file of the energy log: one host's segment, or compacted ones of several (no ``host``)."""

    key: str
    day: date
    size_bytes: int
    host: str | None = None


@dataclass(frozen=True)
class LoggedDay:
    """A day of the log.

    loose: the latest version of each segment that no compaction holds, with its size in bytes.
    compactions: by number. garbage: keys of files that one of the two replaces.
    """

    day: date
    loose: Mapping[EnergyKey, int]
    compactions: Mapping[int, Compaction]
    garbage: Sequence[str]

    @property
    def files(self) -> list[EnergyFile]:
        """The files to read."""
        compacted = self.compactions.values()
        return [
            *(EnergyFile(one.key, self.day, one.size_bytes) for one in compacted),
            *(EnergyFile(name.key, self.day, n, name.host) for name, n in self.loose.items()),
        ]


def energy_files(
    store: ObjectStore, since: datetime | None = None, until: datetime | None = None
) -> list[EnergyFile]:
    """The files that may hold rows of that time, in order of day; all of them by default.

    Only the prefixes of those days are listed. A row is filed under the UTC day it begins on, so
    the day before ``since`` is among them. Times have a zone; ``until`` is exclusive.
    """
    first = date.min if since is None else since.astimezone(UTC).date() - _DAY
    last = date.max if until is None else until.astimezone(UTC).date()
    days = [day for day in energy_days(store) if first <= day <= last]
    with ThreadPoolExecutor(_THREADS) as pool:
        found = pool.map(lambda day: logged_day(store, day).files, days)
        return [file for files in found for file in files]


def energy_days(store: ObjectStore) -> list[date]:
    """The UTC days that the log has a prefix for."""
    names = (name.removeprefix("date=") for name in store.list_dirs(ENERGY))
    return [day for day in map(parse_day, names) if day is not None]


def logged_day(store: ObjectStore, day: date) -> LoggedDay:
    """The log's files of a UTC day. Raises Fatal if a compaction is inconsistent.

    Compactions are listed last: a file that one has replaced, and that is gone from the first
    list, is in the second; one found in both lists is counted once.
    """
    segments, superseded = _latest(store, energy_of_hosts(day))
    compactions, unwanted = _compactions(store, day)
    for number, record in compactions.items():
        for source in filter(None, map(parse_energy_key, record.sources)):
            found, _ = segments.pop(source[:-1], (None, 0))
            if found is None:
                continue
            if found.version > source.version:
                raise Fatal(
                    f"{found.key}: written after {compaction_record(day, number)} put {record.key} "
                    "in its place: some of its rows would count twice; move it out of the store, "
                    "and write again what only it has"
                )
            superseded.append(found.key)
    return LoggedDay(day, dict(segments.values()), compactions, superseded + unwanted)


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
        parquet.make_fragment(file.key, file_system, partition_expression=_holds(file))
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
    files = [
        (name, EnergyFile(name.key, day, size_bytes, host))
        for day in (today - _DAY, today)
        for name, size_bytes in _latest(store, energy_of_host(day, host))[0].values()
    ]
    file_system = arrow_file_system(store.config)
    closed_writers: set[str] = set()
    for name, file in files:
        with file_system.open_input_file(file.key) as source:
            if footer_of(pq.read_metadata(source).metadata or {})[1]:
                closed_writers.add(name.writer)
    mine = pads.field("cluster_id") == cluster_id
    ends: dict[str, tuple[datetime, bool]] = {}
    for name, file in files:
        table = dataset_of(store, [file]).to_table(["hw_id", "ts_end"], filter=mine)
        last = table.group_by("hw_id").aggregate([("ts_end", "max")])
        for row in last.to_pylist():
            end = (row["ts_end_max"], name.writer in closed_writers)
            ends[row["hw_id"]] = max(end, ends.get(row["hw_id"], end))
    return {hw_id: end for hw_id, (end, closed) in ends.items() if not closed}


_Segment = tuple[date, str, str, int]


def _latest(
    store: ObjectStore, prefix: str
) -> tuple[dict[_Segment, tuple[EnergyKey, int]], list[str]]:
    """The latest version of every segment there, with its size; keys of the earlier ones."""
    latest: dict[_Segment, tuple[EnergyKey, int]] = {}
    earlier: list[str] = []
    for info in store.list(prefix):
        name = parse_energy_key(info.key)
        if name is not None:
            found = (name, info.size_bytes)
            known = latest.setdefault(name[:-1], found)
            if known is not found:
                latest[name[:-1]] = max(known, found)
                earlier.append(min(known, found)[0].key)
    return latest, earlier


def _compactions(store: ObjectStore, day: date) -> tuple[dict[int, Compaction], list[str]]:
    """The day's compactions by number; keys of files that did not become one."""
    records: dict[int, Compaction] = {}
    files: dict[str, int] = {}
    for info in store.list(compactions_of(day)):
        number, is_record = parse_compaction(info.key) or (None, False)
        if number is None:
            continue
        if is_record:
            records[number] = parse_record(Compaction, info.key, store.get(info.key))
        else:
            files[info.key] = number
    return records, [key for key, n in files.items() if n in records and records[n].key != key]


def _holds(file: EnergyFile) -> pads.Expression:
    start = datetime.combine(file.day, day_time(), UTC)
    day = pa.scalar(start, pa.timestamp("us", tz="UTC"))
    ts_start = pads.field("ts_start")
    end = pc.add(day, pa.scalar(_DAY, pa.duration("us")))
    of_day = (ts_start >= day) & (ts_start < end)
    return of_day if file.host is None else of_day & (pads.field("host_name") == file.host)
