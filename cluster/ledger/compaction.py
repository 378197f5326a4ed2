"""Compaction: merge the many small files of an old day of the energy log into a few large ones.

A compacted file is valid once its record exists. The record is created only if absent and lists
the files that the compacted one replaces. Readers ignore those from then on, deleted or not. So a
crash at any point neither loses nor duplicates rows.

Only files that cannot grow any more are merged: their writer has ended properly, or has written
to a day ``SETTLED`` later. The last files of a node that died, and files whose rows do not add up
to their meter's total, stay as they are.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import date

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cluster.errors import NotFound
from cluster.ledger.reader import LoggedDay, energy_days, logged_day
from cluster.ledger.rows import EnergyParquet, MeterTotals, footer_of
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.ledger.writer import SETTLED
from cluster.storage.commit import create_once, parse_record
from cluster.storage.layout import (
    EnergyKey,
    compacted_file,
    compaction_record,
    parse_energy_key,
)
from cluster.storage.object_store import ObjectStore
from cluster.types import Compaction

FILE_ROWS = 1_000_000
"""A compacted file with as many rows is full: some 12 MB."""
GROUP_ROWS = 125_000
"""So many rows are in memory at a time, and in a row group."""


def compact(
    store: ObjectStore,
    today: date,
    *,
    file_rows: int = FILE_ROWS,
    on_day: Callable[[int, int, str], None] = lambda *_: None,
) -> Iterator[tuple[date, Compaction]]:
    """Compact every day up to ``SETTLED`` before today (UTC); each compaction as it is made.

    May be repeated, and be interrupted at any point. Of two at once one makes a day's next file;
    the other goes on with the following day. on_day hears, before each day: how many are done, of
    how many, and what comes now.
    """
    days = [logged_day(store, day) for day in energy_days(store)]
    sealed = _Sealed(store, days)
    for done, logged in enumerate(days):
        on_day(done, len(days), f"compacting {logged.day}")
        if logged.day <= today - SETTLED:
            for key in logged.garbage:
                store.delete(key)
            for made in _compact_day(store, logged, sealed, file_rows):
                yield logged.day, made


def _compact_day(
    store: ObjectStore, logged: LoggedDay, sealed: _Sealed, file_rows: int
) -> Iterator[Compaction]:
    number = max(logged.compactions, default=-1)
    for batch in _batches(store, filter(sealed, sorted(logged.loose)), file_rows):
        number += 1
        made = _replace(store, logged.day, number, batch)
        if made is None:
            return
        yield made


class _Batch:
    """Files becoming one."""

    def __init__(self) -> None:
        self.sources: list[str] = []
        self.rows = 0
        self._metered: MeterTotals = Counter()
        self._file = EnergyParquet()
        self._waiting: list[pa.Table] = []

    def add(self, source: str, table: pa.Table, metered: MeterTotals) -> None:
        """Take a file's rows, and what its meters said."""
        self.sources.append(source)
        self.rows += table.num_rows
        self._metered += metered
        self._waiting.append(table)
        if sum(table.num_rows for table in self._waiting) >= GROUP_ROWS:
            self._write()

    def finish(self) -> bytes:
        """The whole file."""
        if self._waiting:
            self._write()
        return self._file.finish(self._metered)

    def _write(self) -> None:
        self._file.write(pa.concat_tables(self._waiting))
        self._waiting = []


def _batches(store: ObjectStore, names: Iterable[EnergyKey], file_rows: int) -> Iterator[_Batch]:
    """The files that add up, so many together as fill a file, and never one alone."""
    batch = _Batch()
    for name in names:
        try:
            data = pq.ParquetFile(pa.BufferReader(store.get(name.key)))
        except NotFound:
            return  # another compaction is at this day
        metered, _ = footer_of(data.metadata.metadata or {})
        table = data.read().cast(ENERGY_SCHEMA)
        if metered.total() != (pc.sum(table["energy_mj"]).as_py() or 0):
            continue  # a report shows by how much; in a sum of several it might vanish
        batch.add(name.key, table, metered)
        if batch.rows >= file_rows and len(batch.sources) > 1:
            yield batch
            batch = _Batch()
    if len(batch.sources) > 1:
        yield batch


def _replace(store: ObjectStore, day: date, number: int, batch: _Batch) -> Compaction | None:
    """Put one file in the place of several; None if another compaction took the number."""
    key = compacted_file(day, number, uuid.uuid4().hex)
    data, sources = batch.finish(), tuple(batch.sources)
    store.put(key, data)
    mine = Compaction(key=key, size_bytes=len(data), rows=batch.rows, sources=sources)
    at = compaction_record(day, number)
    stored = parse_record(Compaction, at, create_once(store, at, mine.model_dump_json().encode()))
    if stored != mine:
        store.delete(key)
        return None
    for source in sources:
        store.delete(source)
    return mine


class _Sealed:
    """Whether a file cannot grow any more."""

    def __init__(self, store: ObjectStore, days: Sequence[LoggedDay]) -> None:
        self._store = store
        self._last: dict[tuple[str, str], EnergyKey] = {}
        for name in _names(days):
            writer = (name.host, name.writer)
            self._last[writer] = max(name, self._last.get(writer, name))
        # A writer's last file was compacted only if that writer had ended
        self._closed = dict.fromkeys(set(self._last.values()) - _loose(days), True)

    def __call__(self, name: EnergyKey) -> bool:
        last = self._last[name.host, name.writer]
        if last.day - name.day >= SETTLED:
            return True
        if last not in self._closed:
            self._closed[last] = False
            with suppress(NotFound), self._store.open_reader(last.key) as source:  # it has grown
                self._closed[last] = footer_of(pq.read_metadata(source).metadata or {})[1]
        return self._closed[last]


def _loose(days: Sequence[LoggedDay]) -> set[EnergyKey]:
    return {name for logged in days for name in logged.loose}


def _names(days: Sequence[LoggedDay]) -> Iterator[EnergyKey]:
    """Every segment that there is or was."""
    yield from _loose(days)
    for logged in days:
        for record in logged.compactions.values():
            yield from filter(None, map(parse_energy_key, record.sources))
