"""The energy log of one node, written to the store in files that grow until they are full.

A segment is rewritten under a new name with every flush, and its last version deleted. So there
are few files, and no write can spoil another: names are never used twice, and readers take the
latest version of each segment, whatever a crash or a delayed request left behind.
"""

from __future__ import annotations

import logging
import threading
import uuid
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, timedelta

import pyarrow as pa

from cluster.clock import Anchor, monotonic_s
from cluster.errors import ClusterError
from cluster.ledger.merge import condensed, merged
from cluster.ledger.rows import (
    MeterTotals,
    energy_parquet,
    energy_table,
    metered_mj,
)
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.ledger.sink import Origin
from cluster.ledger.usage import EnergyRow
from cluster.storage.layout import EnergyKey
from cluster.storage.object_store import ObjectStore

logger = logging.getLogger(__name__)

SETTLED = timedelta(days=2)
"""A writer's files of a day grow no more once it has written to one so much later."""


class EnergyLog:
    """The ``RowSink`` that writes: keeps rows in memory and writes them when flushed. Thread-safe.

    flush_s: how often it wants to be flushed: what a node that dies loses at most.
    segment_rows: a file with as many rows is full.
    max_rows: kept while the store is away; beyond that, the rows of each device become one
        ``gap`` that says how much there was, but no longer whose.
    """

    def __init__(
        self,
        store: ObjectStore,
        host: str,
        flush_s: float = 60.0,
        *,
        cluster_id: str,
        anchor: Anchor | None = None,
        segment_rows: int = 20_000,
        max_rows: int = 100_000,
    ) -> None:
        self.origin = Origin(cluster_id, host, anchor or Anchor.now())
        self._store = store
        self._flush_s = flush_s
        self._segment_rows = segment_rows
        self._max_rows = max_rows
        self._writer = uuid.uuid4().hex
        self._segments: list[_Segment] = []
        self._stale: list[str] = []
        self._rows: list[EnergyRow] = []
        self._lock = threading.Lock()  # of the rows; never held while the store is at work
        self._flushing = threading.Lock()
        self._flushed_s = monotonic_s()

    @property
    def due(self) -> bool:
        """Whether it is time to flush."""
        return monotonic_s() - self._flushed_s >= self._flush_s

    @property
    def pending_rows(self) -> int:
        """Rows that are not in the store yet."""
        return len(self._rows)

    def add(self, rows: Iterable[EnergyRow]) -> None:
        """Take rows, to be written with the next flush. All rows of an interval come together."""
        with self._lock:
            self._rows += rows

    def flush(self) -> bool:
        """Write what is new; False if the store would not: then it waits for the next time."""
        with self._flushing:
            return self._flush(closing=False)

    def close(self) -> bool:
        """Flush, and write that this log ended in good order. Add nothing afterwards."""
        with self._flushing:
            return self._flush(closing=True)

    def _flush(self, *, closing: bool) -> bool:
        self._flushed_s = monotonic_s()
        with self._lock:
            rows, self._rows = self._rows, []
        waiting = self._by_day(rows)
        try:
            for day in sorted(waiting):
                self._write(self._segment(day), waiting[day])
                del waiting[day]
            if closing and self._segments:
                self._write(self._segments[-1], [], closed=True)
        except ClusterError as error:
            logger.warning("energy rows stay in memory, the store did not take them: %s", error)
            return False
        finally:
            with self._lock:
                self._rows = [row for day in sorted(waiting) for row in waiting[day]] + self._rows
        self._delete_stale()
        return True

    def _delete_stale(self) -> None:
        """Delete versions that were replaced. Readers ignore them: it may fail until next time."""
        with suppress(ClusterError):
            while self._stale:
                self._store.delete(self._stale[-1])
                self._stale.pop()

    def _by_day(self, rows: Sequence[EnergyRow]) -> dict[date, list[EnergyRow]]:
        days: dict[date, list[EnergyRow]] = {}
        for row in rows:
            day = self.origin.anchor.utc_at(row.interval.start_ns).date()
            days.setdefault(day, []).append(row)
        if len(rows) > self._max_rows:
            # By day, so that they stay in the segment that they may have been written to before
            logger.warning("%d energy rows wait for the store: made into gaps", len(rows))
            days = {day: condensed(of_day) for day, of_day in days.items()}
        return days

    def _segment(self, day: date) -> _Segment:
        """The segment to write to: the day's last, unless it is full or settled."""
        last = max((s for s in self._segments if s.day == day), key=_number, default=None)
        settled = any(s.day - day >= SETTLED for s in self._segments)
        if last is not None and last.table.num_rows < self._segment_rows and not settled:
            return last
        segment = _Segment(day, max(map(_number, self._segments), default=-1) + 1)
        # Around midnight two days are written to; nothing else is needed again
        self._segments = [*sorted(self._segments, key=_day)[-1:], segment]
        return segment

    def _write(self, segment: _Segment, rows: Sequence[EnergyRow], *, closed: bool = False) -> None:
        table = pa.concat_tables([segment.table, energy_table(merged(rows), self.origin)])
        metered = segment.metered + metered_mj(rows)
        if segment.version >= 0:
            self._stale.append(self._key(segment))
        segment.version += 1
        self._store.put(self._key(segment), energy_parquet(table, metered, closed=closed))
        segment.table, segment.metered = table, metered

    def _key(self, segment: _Segment) -> str:
        host = self.origin.host
        return EnergyKey(segment.day, host, self._writer, segment.number, segment.version).key


@dataclass
class _Segment:
    """What one file holds, as far as the store is known to have it."""

    day: date
    number: int
    table: pa.Table = field(default_factory=ENERGY_SCHEMA.empty_table)
    metered: MeterTotals = field(default_factory=Counter)
    version: int = -1


def _number(segment: _Segment) -> int:
    return segment.number


def _day(segment: _Segment) -> date:
    return segment.day
