"""Jobs in a store without a model: synthetic images, written as a replica writes them."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cluster.pipeline.encode import encode_batch
from cluster.pipeline.parquet import shard_parquet
from cluster.storage.commit import commit
from cluster.storage.finish import finalise
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import CommitRecord, DataObject, Energy, JobRecord, Shard, Workload

ESTIMATE = Energy(energy_mj=3000, low_mj=1000, high_mj=9000, quality="estimated", method="test")
HARDWARE = "test device"
START = datetime(2026, 1, 1, tzinfo=UTC)


def workload(job_id: str = "job", **changes: Any) -> Workload:
    """Twenty 8x8 images of three classes in shards of six, unless changed."""
    settings: dict[str, Any] = {
        "job_id": job_id,
        "model": "test/tiny",
        "model_rev": "rev-1",
        "count": 20,
        "seed": 2**64 - 1,
        "shard_images": 6,
        "class_ids": (0, 2, 1),
        "labels": ("ant", "bee"),
        "width": 8,
        "height": 8,
    }
    return Workload(**settings | changes)


def pixels(job: Workload, start: int, stop: int) -> NDArray[np.uint8]:
    """(stop - start, H, W, 3): each picture a function of the seed and its own index."""
    return np.stack(
        [
            np.random.default_rng((job.seed, index)).integers(
                0, 256, (job.height, job.width, 3), np.uint8
            )
            for index in range(start, stop)
        ]
    )


def parquet(job: Workload, shard: Shard, energy: Energy = ESTIMATE) -> bytes:
    class_ids = job.classes_of(shard.start, shard.stop)
    parts = [encode_batch(pixels(job, shard.start, shard.stop), job.encoding)]
    return bytes(shard_parquet(job, shard, class_ids, parts, energy, HARDWARE))


def record_of(
    job: Workload, shard: Shard, data: bytes, energy: Energy = ESTIMATE, **changes: Any
) -> CommitRecord:
    """The commit record of an attempt that wrote ``data``."""
    attempt_id = uuid.uuid4().hex
    written = DataObject(
        key=JobLayout(job.job_id).images(shard.index, attempt_id),
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        rows=shard.rows,
    )
    fields: dict[str, Any] = {
        "job_id": job.job_id,
        "shard": shard.index,
        "start": shard.start,
        "stop": shard.stop,
        "attempt_id": attempt_id,
        "token": uuid.uuid4().hex,
        "objects": (written,),
        "rows": shard.rows,
        "energy": energy,
        "model_rev": job.model_rev,
        "hardware": HARDWARE,
        "host_name": "here",
        "generate_s": 0.5,
        "committed_at": START + timedelta(seconds=shard.index),
    }
    return CommitRecord(**fields | changes)


def submit(store: ObjectStore, job: Workload, *, submitted_at: datetime = START) -> None:
    spec = {"model": job.model, "count": job.count}
    record = JobRecord(workload=job, spec=spec, owner="tester", submitted_at=submitted_at)
    store.put(JobLayout(job.job_id).spec, record.model_dump_json().encode())


def write_shard(
    store: ObjectStore, job: Workload, index: int, energy: Energy = ESTIMATE
) -> CommitRecord:
    """One attempt at a shard, committed."""
    shard = job.shard(index)
    data = parquet(job, shard, energy)
    record = record_of(job, shard, data, energy)
    store.put(record.objects[0].key, data)
    commit(store, record)
    return record


def write_job(
    store: ObjectStore,
    job: Workload,
    *,
    shards: Iterable[int] | None = None,
    energy: Energy = ESTIMATE,
    finish: bool = True,
) -> list[CommitRecord]:
    """A submitted job with these shards committed (all by default), and completed if asked."""
    submit(store, job)
    indices = range(job.num_shards) if shards is None else shards
    records = [write_shard(store, job, index, energy) for index in indices]
    if finish:
        finalise(store, job.job_id, "completed", shards=job.num_shards, drained=True)
    return records


def replace_parquet(store: ObjectStore, record: CommitRecord, data: bytes) -> CommitRecord:
    """Swap a committed object for other bytes and make its record vouch for them."""
    changed = record.objects[0].model_copy(
        update={"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    )
    record = record.model_copy(update={"objects": (changed,)})
    store.put(changed.key, data)
    store.put(JobLayout(record.job_id).commit(record.shard), record.model_dump_json().encode())
    return record
