"""The rows of a report: from the energy log, or, in a store without one, from commits.

Either way they are the view ``energy`` of a DuckDB connection, with the columns of
``ENERGY_SCHEMA`` and only the rows of the period: those that begin in it. Of the log only the
files of the period's days are opened, and of those only the columns that a query names are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from cluster.ledger.reader import EnergyFile, dataset_of, energy_files
from cluster.ledger.rows import footer_of
from cluster.ledger.schema import ENERGY_SCHEMA
from cluster.storage.arrow_files import arrow_file_system
from cluster.storage.layout import ENERGY
from cluster.storage.object_store import ObjectStore
from cluster.storage.summaries import JobSummary, list_jobs
from cluster.types import CommitRecord

Source = Literal["ledger", "commits"]
_THREADS = 8
_FILES_AT_ONCE = 2000
_FOOTERS = "select key, value from parquet_kv_metadata($paths)"


@dataclass(frozen=True)
class Period:
    """Rows that begin in it count. Times have a zone; None is open; until is exclusive."""

    since: datetime | None = None
    until: datetime | None = None

    def holds(self, moment: datetime) -> bool:
        return (self.since is None or moment >= self.since) and (
            self.until is None or moment < self.until
        )

    @property
    def whole_days(self) -> bool:
        """Whether no UTC day is cut, so that no row of a day's files is to be left out."""
        ends = (end.astimezone(UTC) for end in (self.since, self.until) if end is not None)
        return all(end == end.replace(hour=0, minute=0, second=0, microsecond=0) for end in ends)


@dataclass(frozen=True)
class Rows:
    """Rows of a period, and what they are made of.

    log: the files with them. where: SQL that leaves out the files' other rows.
    first_day, last_day: that there may be rows of; None where there are none.
    """

    connection: duckdb.DuckDBPyConnection
    source: Source
    store: ObjectStore
    log: Sequence[EnergyFile] = ()
    where: str = ""
    first_day: date | None = None
    last_day: date | None = None

    def gather(self, table: str, select: str) -> None:
        """Collect the result of a SELECT from ``energy`` in a table, some files at a time.

        A group may appear once per part: add the collected rows up again. So memory does not grow
        with the log.
        """
        how = f"create or replace temp table {table} as"
        for _ in self._parts():
            self.connection.execute(f"{how} {select}")
            how = f"insert into {table}"

    def metered_mj(self) -> int | None:
        """Metered energy from the footers of the log's files, mJ; None for commits.

        That does not come from the files' rows, but should be their sum. Another thread may ask.
        """
        if self.source == "commits":
            return None
        with _connect() as connection:
            return sum(self._told_mj(connection, files) for files in self._chunks())

    def logged_mj(self, reported_mj: int) -> int:
        """The sum of all rows of the files. reported_mj: that of the rows in the period."""
        if not self.where:
            return reported_mj
        self.gather("whole", "select sum(energy_mj) as mj from energy_log")
        found = self.connection.execute("select sum(mj) from whole").fetchall()
        return int(found[0][0] or 0)

    def _parts(self) -> Iterator[None]:
        """Make ``energy`` the rows of a part of the files, one part after the other."""
        if self.source == "commits":
            yield
            return
        for files in self._chunks() or [[]]:
            if not files:
                self.connection.register("energy_log", ENERGY_SCHEMA.empty_table())
            elif _is_local(self.store):  # DuckDB's own reader is twice as fast as Arrow's
                paths = ", ".join(map(_literal, _paths(self.store, files)))
                log = f"read_parquet([{paths}], hive_partitioning = false)"
                self.connection.execute(f"create or replace temp view energy_log as from {log}")
            else:
                self.connection.register("energy_log", dataset_of(self.store, files))
            self.connection.execute(
                f"create or replace temp view energy as from energy_log {self.where}"
            )
            yield

    def _chunks(self) -> list[Sequence[EnergyFile]]:
        return [self.log[i : i + _FILES_AT_ONCE] for i in range(0, len(self.log), _FILES_AT_ONCE)]

    def _told_mj(self, connection: duckdb.DuckDBPyConnection, files: Sequence[EnergyFile]) -> int:
        if _is_local(self.store):
            paths = {"paths": _paths(self.store, files)}
            found = connection.execute(_FOOTERS, paths).fetchall()
            return sum(footer_of({key: value})[0].total() for key, value in found)
        file_system = arrow_file_system(self.store.config)

        def of_file(file: EnergyFile) -> int:
            with file_system.open_input_file(file.key) as source:
                return footer_of(pq.read_metadata(source).metadata or {})[0].total()

        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(pool.map(of_file, files))


def _connect() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    for setting in (
        "timezone = 'UTC'",
        "enable_progress_bar = false",  # it would go to standard output
        "python_enable_replacements = false",  # names of Python variables are not tables
        "disable_parquet_prefetching = true",  # a copy more, of files that are small
    ):
        connection.execute(f"set {setting}")
    return connection


def log_files(store: ObjectStore, period: Period) -> list[EnergyFile] | None:
    """The files of the log with rows that begin in the period; None if the store has no log."""
    if not store.list_dirs(ENERGY):
        return None
    # Rows are filed under the day they begin on. Asked for a time, `energy_files` finds those of
    # the day before as well, which may reach into it; they do not begin in it.
    since = None if period.since is None else period.since + timedelta(days=1)
    until = None if period.until is None else period.until - timedelta(microseconds=1)
    return energy_files(store, since, until)


@contextmanager
def open_rows(store: ObjectStore, period: Period, files: list[EnergyFile] | None) -> Iterator[Rows]:
    """The rows of the period in these ``log_files``, or if they are None in the commits."""
    with _connect() as connection:
        if files is None:
            yield _commit_rows(connection, store, period)
        else:
            where = "" if period.whole_days else f"where {_begins_in(period)}"
            days = _ends([file.day for file in files])
            yield Rows(connection, "ledger", store, files, where, *days)


def _begins_in(period: Period) -> str:
    ends = ((">=", period.since), ("<", period.until))
    return " and ".join(
        f"ts_start {sign} '{end.astimezone(UTC).isoformat()}'::timestamptz"
        for sign, end in ends
        if end is not None
    )


def _commit_rows(connection: duckdb.DuckDBPyConnection, store: ObjectStore, period: Period) -> Rows:
    rows = [
        _commit_row(job, commit)
        for job in list_jobs(store)
        for commit in job.commits
        if period.holds(_began(commit))
    ]
    connection.register("energy", pa.Table.from_pylist(rows, ENERGY_SCHEMA))
    days = _ends([row["ts_start"].date() for row in rows])
    return Rows(connection, "commits", store, (), "", *days)


def _ends(days: list[date]) -> tuple[date | None, date | None]:
    return min(days, default=None), max(days, default=None)


def _commit_row(job: JobSummary, commit: CommitRecord) -> dict[str, Any]:
    """A commit as a row of the log: what its shard took, charged to the job."""
    energy = commit.energy
    return {
        "host_name": commit.host_name,
        "hw_id": commit.hardware,
        "hw_name": commit.hardware,
        "ts_start": _began(commit),
        "ts_end": commit.committed_at,
        "duration_ns": round(commit.generate_s * 1e9),
        "bucket": "job",
        "energy_mj": energy.energy_mj,
        "energy_low_mj": energy.low_mj,
        "energy_high_mj": energy.high_mj,
        "quality": energy.quality,
        "method": energy.method,
        "job_id": commit.job_id,
        "shard": commit.shard,
        "attempt_id": commit.attempt_id,
        "images": commit.rows,
        "model_rev": job.workload.model_rev,
    }


def _began(commit: CommitRecord) -> datetime:
    return (commit.committed_at - timedelta(seconds=commit.generate_s)).astimezone(UTC)


def _is_local(store: ObjectStore) -> bool:
    return urlsplit(store.config.uri).scheme == "file"


def _paths(store: ObjectStore, files: Sequence[EnergyFile]) -> list[str]:
    root = Path(unquote(urlsplit(store.config.uri).path))
    return [str(root / file.key) for file in files]


def _literal(text: str) -> str:
    quoted = text.replace("'", "''")
    return f"'{quoted}'"
