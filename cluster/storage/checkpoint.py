"""Checkpoints: the commits of a range of shards in one object.

A checkpoint is a cache. The commit records stay, and stay the truth: what is torn, damaged, of a
newer version or gone is read from them instead, so any checkpoint may be deleted at any time.

Its key has a seal of two digests: of its header (range, shards, images, energy), which is in the
Parquet footer, so that who wants totals reads no more than the footer; and of the whole object.
So equal commits make equal keys, two writers cannot spoil each other's, and damage shows.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from cluster.errors import ClusterError, Fatal, NotFound
from cluster.scheduler.ranges import runs
from cluster.storage.backoff import Backoff
from cluster.storage.commit import create_once
from cluster.storage.commit_table import (
    TABLE_SCHEMA,
    energy_of,
    images_of,
    merged,
    shards_of,
    table_of,
)
from cluster.storage.layout import JobLayout, parse_checkpoint
from cluster.storage.object_store import ObjectStore
from cluster.types import Checkpoint, CheckpointRef, CommitRecord

logger = logging.getLogger(__name__)

_HEADER = b"un0.checkpoint"
_DIGITS = 32  # of each digest
_READ_THREADS = 8


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
        table.replace_schema_metadata({_HEADER: text}),
        sink,
        compression="zstd",
        use_dictionary=["job_id", "model_rev", "hardware", "host_name"],
        store_schema=False,
        write_statistics=False,
    )
    data = sink.getvalue().to_pybytes()
    seal = f"{_digest(text)}-{_digest(data)}"
    return CheckpointRef(**dict(header), seal=seal), data


def read_headers(
    store: ObjectStore, job_id: str, keys: Sequence[str]
) -> tuple[tuple[CheckpointRef, ...], list[str]]:
    """The checkpoints at these keys, by range, none within another, of one range the fullest; and a
    line for each that is not good.

    Reads footers only: damage elsewhere shows when the commits in it are read.
    """
    faults: list[str] = []

    def look(key: str) -> CheckpointRef | None:
        try:
            return _read_header(store, job_id, key)
        except NotFound:
            return None  # a later one has taken its place, and its shards' commits are listed
        except Fatal as error:
            faults.append(str(error))
            return None

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [ref for ref in pool.map(look, keys) if ref is not None]
    chosen: list[CheckpointRef] = []
    for ref in sorted(found, key=lambda ref: (ref.first, -ref.count, ref.seal)):
        if not chosen or ref.first >= chosen[-1].stop:
            chosen.append(ref)
    for line in faults:
        logger.warning("%s; its commits are read one by one", line)
    return tuple(chosen), sorted(faults)


def read_checkpoint(store: ObjectStore, ref: CheckpointRef) -> pa.Table:
    """The commits in it, as ``TABLE_SCHEMA``. Raises Fatal if it is damaged, NotFound if gone."""
    key = key_of(ref)
    data = store.get(key)
    if _digest(data) != ref.seal.partition("-")[2]:
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


def key_of(ref: CheckpointRef) -> str:
    return JobLayout(ref.job_id).checkpoint(ref.first, ref.stop, ref.seal)


def _read_header(store: ObjectStore, job_id: str, key: str) -> CheckpointRef:
    named = parse_checkpoint(key)
    if named is None:
        raise Fatal(f"{key}: not a checkpoint's name")
    first, stop, seal = named
    try:
        with store.open_reader(key) as source:
            text = (pq.read_metadata(source).metadata or {}).get(_HEADER, b"")
        if _digest(text) != seal.partition("-")[0]:
            raise Fatal(f"{key}: damaged: its header's sha256 is not the one in its name")
        header = Checkpoint.model_validate_json(text)
    except (pa.ArrowException, OSError, ValidationError) as error:
        kind = "of a newer version of un0" if isinstance(error, ValidationError) else "damaged"
        raise Fatal(f"{key}: not a checkpoint this version can read; it is {kind}") from error
    if (header.job_id, header.first, header.stop) != (job_id, first, stop) or not _sound(header):
        raise Fatal(f"{key}: it speaks of job {header.job_id}, shards {header.shards}")
    return CheckpointRef(**dict(header), seal=seal)


def _sound(header: Checkpoint) -> bool:
    ends = [end for pair in header.shards for end in pair]
    ends = [header.first, *ends, header.stop]
    return header.count > 0 and ends == sorted(ends)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
