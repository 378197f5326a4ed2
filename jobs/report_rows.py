"""Where a report's rows come from: the energy log, or, in a store without one, the commits.

Either way they are the view ``energy`` of a DuckDB connection, with the columns of
``ENERGY_SCHEMA`` and only the rows of the period: those that begin in it. Of the log only the
files of the period's days are opened, and of those only the columns that a query names.
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

from cluster.storage.arrow_files import arrow_file_system
from cluster.storage.energy_reader import EnergyFile, dataset_of, energy_files
from cluster.storage.energy_rows import footer_of
from cluster.storage.layout import ENERGY
from cluster.storage.object_store import ObjectStore
from cluster.storage.reader import JobSummary, list_jobs
from cluster.storage.schemas import ENERGY_SCHEMA
from cluster.types import CommitRecord

Source = Literal["ledger", "commits"]
_THREADS = 8


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
    """The view ``energy`` of the connection, and what it is made of.

    log: the files opened. cut: the period leaves out some of their rows.
    first_day, last_day: that there may be rows of; None where there are none.
    """

    connection: duckdb.DuckDBPyConnection
    source: Source
    store: ObjectStore
    log: Sequence[EnergyFile] = ()
    cut: bool = False
    first_day: date | None = None
    last_day: date | None = None

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.log)

    def closure_error_mj(self, rows_mj: int) -> int | None:
        """By how much the rows of the log differ from its meters' totals; None for commits.

        rows_mj: the known energy of all rows of the view. Every file of the log says in its
        footer what the meters told, which does not come from its rows.
        """
        if self.source == "commits":
            return None
        if self.cut:
            found = self.connection.sql("select sum(energy_mj) from energy_log").fetchall()
            rows_mj = int(found[0][0] or 0)
        return abs(self._metered_mj() - rows_mj)

    def _metered_mj(self) -> int:
        if not self.log:
            return 0
        if _is_local(self.store):
            found = self.connection.execute(
                "select key, value from parquet_kv_metadata($paths)",
                {"paths": _paths(self.store, self.log)},
            ).fetchall()
            return sum(footer_of({key: value})[0].total() for key, value in found)
        file_system = arrow_file_system(self.store.config)

        def of_file(file: EnergyFile) -> int:
            with file_system.open_input_file(file.key) as source:
                return footer_of(pq.read_metadata(source).metadata or {})[0].total()

        with ThreadPoolExecutor(_THREADS) as pool:
            return sum(pool.map(of_file, self.log))


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
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.execute("set python_enable_replacements = false")
        connection.execute("set parquet_metadata_cache = true")
        if files is None:
            yield _commit_rows(connection, store, period)
        else:
            yield _log_rows(connection, store, period, files)


def _log_rows(
    connection: duckdb.DuckDBPyConnection,
    store: ObjectStore,
    period: Period,
    files: list[EnergyFile],
) -> Rows:
    if not files:
        connection.register("energy_log", ENERGY_SCHEMA.empty_table())
    elif _is_local(store):  # DuckDB's own reader is twice as fast as Arrow's
        paths = ", ".join(_literal(path) for path in _paths(store, files))
        log = f"read_parquet([{paths}], hive_partitioning = false)"
        connection.execute(f"create temp view energy_log as select * from {log}")
    else:
        connection.register("energy_log", dataset_of(store, files))
    where = "" if period.whole_days else f"where {_begins_in(period)}"
    connection.execute(f"create temp view energy as select * from energy_log {where}")
    days = [file.name.day for file in files]
    return Rows(
        connection,
        "ledger",
        store,
        files,
        not period.whole_days,
        min(days, default=None),
        max(days, default=None),
    )


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
    days = [row["ts_start"].date() for row in rows]
    return Rows(
        connection,
        "commits",
        store,
        first_day=min(days, default=None),
        last_day=max(days, default=None),
    )


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
