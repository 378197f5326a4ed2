"""The audit log: who did what, when, and what was answered. Files of JSON lines in the store.

Entries are written in batches: a process that is killed loses those of its last seconds.
"""

from __future__ import annotations

import threading
import uuid
from datetime import date, datetime
from itertools import groupby

from cluster.storage.layout import audit_key
from cluster.storage.object_store import ObjectStore
from cluster.types import Record

_MOST = 100_000  # entries in memory while the store cannot be written to


class Entry(Record):
    """One act. action: a verb, such as ``jobs.submit``. status: as HTTP has it; None otherwise."""

    at: datetime
    action: str
    owner: str | None
    token_id: str | None
    address: str | None = None
    job_id: str | None = None
    status: int | None = None
    detail: str = ""


class Audit:
    """Entries on their way to the store. Thread-safe. lost: entries given up for want of room."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._writer = uuid.uuid4().hex[:16]
        self._number = 0
        self._entries: list[Entry] = []
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self.lost = 0

    def add(self, entry: Entry) -> None:
        """Keep the entry for the next ``flush``."""
        with self._lock:
            if len(self._entries) < _MOST:
                self._entries.append(entry)
            else:
                self.lost += 1

    def flush(self) -> None:
        """Write what there is, a file a day. What cannot be written is kept for the next time."""
        with self._writing:
            with self._lock:
                entries, self._entries = self._entries, []
            done = 0
            try:
                for day, group in groupby(entries, key=_day):
                    some = list(group)
                    lines = [entry.model_dump_json(exclude_none=True) + "\n" for entry in some]
                    key = audit_key(day, self._writer, self._number)
                    self._store.put(key, "".join(lines).encode())
                    self._number += 1
                    done += len(some)
            finally:
                with self._lock:
                    self._entries = entries[done:] + self._entries


def _day(entry: Entry) -> date:
    return entry.at.date()
