"""SQL over a store: DuckDB with views of its images, commits and jobs, its energy and batches.

Of images only committed files are read. DuckDB itself reaches no file and no network: Arrow hands
it the columns and row groups that a query needs, so a statement can neither change nor leak
anything.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as pads

from cluster.energy import in_joules
from cluster.errors import UserError
from cluster.ledger.reader import energy_dataset
from cluster.storage.arrow_files import arrow_file_system
from cluster.storage.commit_table import commit_rows
from cluster.storage.job_rows import carried_schema
from cluster.storage.layout import holds_images
from cluster.storage.object_store import ObjectStore
from cluster.storage.schemas import COMMIT_SCHEMA, IMAGE_SCHEMA, JOB_SCHEMA
from cluster.storage.summaries import JobSummary, list_jobs
from cluster.types import CommitRecord, Energy

# What an attempt took of one device. A sum with an unknown part is unknown, not what is known.
_BATCHES = """
create view batches as
select job_id, shard, attempt_id, bucket, cluster_id, host_name, hw_id, hw_type, hw_name, zone,
    min(ts_start) as ts_start, max(ts_end) as ts_end, sum(duration_ns)::bigint as duration_ns,
    sum(images)::bigint as images, max(batch_size) as batch_size,
    if(count(*) = count(energy_mj), sum(energy_mj), null)::bigint as energy_mj,
    if(count(*) = count(energy_low_mj), sum(energy_low_mj), null)::bigint as energy_low_mj,
    if(count(*) = count(energy_high_mj), sum(energy_high_mj), null)::bigint as energy_high_mj,
    bool_or(shared) as shared,
    case
        when bool_or(quality = 'missing') then 'missing'
        when bool_or(quality = 'estimated') then 'estimated'
        when bool_or(quality = 'measured_power') then 'measured_power'
        else 'measured_counter'
    end as quality,
    model_rev, steps, width, height, precision
from energy
where attempt_id is not null
group by all
"""

_BY_SHARD = ("images", "commits")


def connect(store: ObjectStore, about: str | None = None) -> duckdb.DuckDBPyConnection:
    """A connection whose views show the store as it is now, each empty in an empty store.

    about: the text of a statement. A view that it does not name stays empty, if it is one that
    would take a step a shard to make: images, commits.
    Close it after use. Its own errors are DuckDB's; ``query`` translates them.
    """
    jobs = list_jobs(store)
    named = [jobs if about is None or name in about.lower() else [] for name in _BY_SHARD]
    connection = duckdb.connect()
    connection.register("images", _image_dataset(store, named[0]))
    connection.register("commits", _commits(named[1]))
    connection.register("jobs", pa.Table.from_pylist(list(map(_job, jobs)), JOB_SCHEMA))
    connection.register("energy", energy_dataset(store))
    connection.execute(_BATCHES)
    for setting in (
        "timezone = 'UTC'",
        "enable_external_access = false",
        "python_enable_replacements = false",  # names of Python variables are not tables
        "lock_configuration = true",
    ):
        connection.execute(f"set {setting}")
    return connection


def query(store: ObjectStore, sql: str) -> pa.Table:
    """The result of one SQL statement over the views of ``connect``.

    Raises UserError, with DuckDB's own words, if the statement is wrong.
    """
    with connect(store, sql) as connection:
        return run(connection, sql)


def run(connection: duckdb.DuckDBPyConnection, sql: str) -> pa.Table:
    """The same on a connection that is open already."""
    if not sql.strip():
        raise UserError("query: empty; try: select label, count(*) from images group by all")
    try:
        result = connection.sql(sql)
        return pa.table({}) if result is None else pa.table(result)
    except (duckdb.Error, pa.ArrowException, OSError) as error:
        raise UserError(f"query: {error}") from error


def _image_dataset(store: ObjectStore, jobs: list[JobSummary]) -> pads.Dataset:
    """The committed image files, each with what a filter must know to leave it unread."""
    # Images come last: to count rows DuckDB reads the first column
    carried = _carried(store, jobs)
    schema = pa.schema([*list(IMAGE_SCHEMA)[1:], *carried, IMAGE_SCHEMA.field(0)])
    files = arrow_file_system(store.config)
    parquet = pads.ParquetFileFormat()
    fragments = [
        parquet.make_fragment(data.key, files, partition_expression=_holds(commit))
        for job in jobs
        for commit in job.commits
        for data in commit.objects
        if holds_images(data.key)
    ]
    return pads.FileSystemDataset(fragments, schema, parquet, files)


def _carried(store: ObjectStore, jobs: list[JobSummary]) -> list[pa.Field]:
    """Columns that jobs of rows carry on: null in images of other jobs. Of a name that two jobs
    have with different types, that of the oldest job is shown, as far as the others can be cast."""
    fields: dict[str, pa.Field] = {}
    for job in jobs:
        if job.commits and job.workload.inputs is not None:
            for column in carried_schema(store, job.workload):
                fields.setdefault(column.name.casefold(), column)
    return list(fields.values())


def _holds(commit: CommitRecord) -> pads.Expression:
    index = pads.field("index")
    return (pads.field("job_id") == commit.job_id) & (index >= commit.start) & (index < commit.stop)


def _commits(jobs: Iterable[JobSummary]) -> pa.Table:
    parts = [commit_rows(table) for job in jobs for table in job.commits.tables()]
    return pa.concat_tables([COMMIT_SCHEMA.empty_table(), *parts])


def _job(job: JobSummary) -> dict[str, Any]:
    return {
        **job.workload.model_dump(include=set(JOB_SCHEMA.names)),
        **_energy(job.energy),
        "state": job.state,
        "images": job.images,
        "shards": job.workload.num_shards,
        "owner": job.owner,
        "submitted_at": job.submitted_at,
    }


def _energy(energy: Energy) -> dict[str, Any]:
    return {
        "energy_j": in_joules(energy.energy_mj),
        "energy_low_j": in_joules(energy.low_mj),
        "energy_high_j": in_joules(energy.high_mj),
        "energy_quality": energy.quality,
    }
