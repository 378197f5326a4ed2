"""Checkpoints: the commits of a range of shards in one object.

A checkpoint is a cache. The commit records stay, and stay the truth: what is torn, damaged, of a
newer version or gone is read from them instead, so any checkpoint may be deleted at any time.

Its key has a seal of two digests: of its header (range, shards, images, energy), which is in the
Parquet footer, so that who wants totals reads no more than the footer; and of the whole object.
So equal commits make equal keys, two writers cannot spoil each other's, and damage shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.errors import ClusterError, Fatal
from cluster.scheduler.ranges import runs
from cluster.storage.backoff import Backoff
from cluster.storage.checkpoint_header import HEADER, digest, key_of
from cluster.storage.commit import create_once
from cluster.storage.commit_table import (
    TABLE_SCHEMA,
    energy_of,
    images_of,
    merged,
    shards_of,
    table_of,
)
from cluster.storage.object_store import ObjectStore
from cluster.types import Checkpoint, CheckpointRef, CommitRecord


def write_checkpoint(
    store: ObjectStore,
    job_id: str,
    first: int,
    stop: int,
    records: Iterable[CommitRecord],
    *,
    extends: CheckpointRef | None = None,
    backoff: Backoff | None = None,
) -> CheckpointRef:
    """Write a checkpoint of these commits of the range, and of those in ``extends``.

    The earlier checkpoint is deleted once the new one is there. Raises Unfit if columns cannot
    hold the records, Fatal if ``extends`` is damaged, and what a store raises.
    """
    tables = [table_of(records)]
    if extends is not None:
        earlier = read_checkpoint(store, extends)
        held = pa.array(shards_of(earlier))
        fresh = pa.compute.invert(pa.compute.is_in(tables[0]["shard"], held))
        tables = [earlier, tables[0].filter(fresh)]
    ref, data = encode(job_id, first, stop, merged(tables))
    key = key_of(ref)
    if create_once(store, key, data, backoff=backoff) != data:
        store.put(key, data)  # what was there does not bear out its name
    if extends is not None and extends != ref:
        with suppress(ClusterError):  # it does no harm
            store.delete(key_of(extends))
    return ref


def encode(job_id: str, first: int, stop: int, table: pa.Table) -> tuple[CheckpointRef, bytes]:
    """A checkpoint of the rows as bytes: the same for the same rows (and version of Arrow)."""
    header = Checkpoint(
        job_id=job_id,
        first=first,
        stop=stop,
        shards=runs(shards_of(table).tolist()),
        images=images_of(table),
        energy=energy_of(table),
    )
    text = header.model_dump_json().encode()
    sink = pa.BufferOutputStream()
    pq.write_table(
        table.replace_schema_metadata({HEADER: text}),
        sink,
        compression="zstd",
        use_dictionary=["job_id", "model_rev", "hardware", "host_name"],
        write_statistics=False,
    )
    data = sink.getvalue().to_pybytes()
    seal = f"{digest(text)}-{digest(data)}"
    return CheckpointRef(**dict(header), seal=seal), data


def read_checkpoint(store: ObjectStore, ref: CheckpointRef) -> pa.Table:
    """The commits in it, as ``TABLE_SCHEMA``. Raises Fatal if it is damaged, NotFound if gone."""
    key = key_of(ref)
    data = store.get(key)
    if digest(data) != ref.seal.partition("-")[2]:
        raise Fatal(f"{key}: damaged: {len(data)} bytes whose sha256 is not the one in its name")
    try:
        table = pq.read_table(pa.BufferReader(data)).cast(TABLE_SCHEMA)
        shards = runs(shards_of(table).tolist())
        told = (shards, images_of(table), energy_of(table))
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        raise Fatal(
            f"{key}: not commits of shards of {ref.first}-{ref.stop - 1}: {error}"
        ) from error
    jobs = set(table["job_id"].unique().to_pylist())
    if told != (ref.shards, ref.images, ref.energy) or jobs != {ref.job_id}:
        raise Fatal(f"{key}: its rows are not what its header says of them")
    return table.replace_schema_metadata(None)
