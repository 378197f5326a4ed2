"""Submit, run and resume jobs. All state of a job is in its store."""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cluster.actors.options import ModelWork, RunOptions
from cluster.clock import utc_now
from cluster.errors import NotFound, UserError
from cluster.hardware.identify import MOST_THREADS
from cluster.stopping import STOP_S
from cluster.storage.commit import find_manifest
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.profiles import rates_of
from cluster.storage.summaries import load_job
from cluster.types import JobRecord, SubmittedSpec, encoding_key, model_key
from jobs.defaults import DEFAULT_STORE
from jobs.follow import OnSnapshot, run
from jobs.resolve import ModelFacts, plan
from jobs.result import JobResult, result_of_earlier
from jobs.shard_grid import ShardGrid, choose_grid
from jobs.spec import JobSpec
from un0.catalog import DEFAULT_MODEL, list_models

OnJob = Callable[[JobRecord], None]
logger = logging.getLogger(__name__)


def generate(
    spec: JobSpec,
    store: str = DEFAULT_STORE,
    *,
    endpoint_url: str | None = None,
    single_writer: bool = False,
    sse: str | None = None,
    sse_kms_key: str | None = None,
    replicas: int | None = None,
    address: str | None = None,
    stop_within_s: float = STOP_S,
    on_job: OnJob | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Submit a job and run it to its end.

    single_writer: accept an S3 server without conditional writes. The caller must ensure that only
        one process runs a job at a time.
    sse, sse_kms_key: server-side encryption on S3 (see ``open_store``).
    stop_within_s: how long SIGINT, SIGTERM or SIGHUP may take to stop it (``jobs.follow.run``).
    on_job: called once the job is in the store; on_snapshot: called with its progress.
    Raises UserError, or un0's InputError or ModelFormatError, for errors that the caller can fix.
    """
    opened = open_store(
        store,
        endpoint_url=endpoint_url,
        single_writer=single_writer,
        sse=sse,
        sse_kms_key=sse_kms_key,
    )
    record, work = prepare(spec, opened)

    def begin() -> None:
        submit(record, opened)
        if on_job is not None:
            on_job(record)

    return run(
        record, opened, RunOptions(replicas, address, stop_within_s), work, begin, on_snapshot
    )


def resume(
    job_id: str,
    store: str = DEFAULT_STORE,
    *,
    model: str | None = None,
    endpoint_url: str | None = None,
    single_writer: bool = False,
    sse: str | None = None,
    sse_kms_key: str | None = None,
    replicas: int | None = None,
    address: str | None = None,
    stop_within_s: float = STOP_S,
    on_job: OnJob | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Run the shards that a job still lacks. Returns at once if it is complete.

    model: where the job's model is now, if it has moved; it must be the same file.
    """
    opened = open_store(
        store,
        endpoint_url=endpoint_url,
        single_writer=single_writer,
        sse=sse,
        sse_kms_key=sse_kms_key,
    )
    record = load_job(opened, job_id)
    if on_job is not None:
        on_job(record)
    manifest = find_manifest(opened, job_id)
    if manifest is not None and manifest.state == "completed":
        return result_of_earlier(manifest, opened.config.uri, record)
    record, work = _with_model(record, model or record.workload.model)

    def begin() -> None:
        """Nothing is written: the coordinator reopens the job when it takes it on."""

    return run(
        record, opened, RunOptions(replicas, address, stop_within_s), work, begin, on_snapshot
    )


def prepare(spec: JobSpec, store: ObjectStore) -> tuple[JobRecord, ModelWork]:
    """Make every choice that the spec leaves open. Writes nothing. UserError if the job exists."""
    submitted_at = utc_now()
    spec = spec.due_from(submitted_at)
    facts, work = model_facts(spec.model or DEFAULT_MODEL)
    grid = shard_grid(spec, facts, store)
    workload = plan(spec, facts, grid.images)
    record = JobRecord(
        workload=workload,
        spec=SubmittedSpec.model_validate(spec.model_dump(mode="json", exclude_none=True)),
        owner=spec.owner or _user(),
        submitted_at=submitted_at,
        shard_reason=grid.reason,
    )
    with suppress(NotFound):
        store.get(JobLayout(workload.job_id).spec)
        raise _taken(workload.job_id, store)
    return record, work


def submit(record: JobRecord, store: ObjectStore) -> None:
    """Write the job to the store. Raises UserError if a job of this id exists."""
    job_id = record.workload.job_id
    spec = record.model_dump_json(indent=2).encode()
    if not store.put_if_absent(JobLayout(job_id).spec, spec):
        raise _taken(job_id, store)


def _taken(job_id: str, store: ObjectStore) -> UserError:
    return UserError(
        f"job {job_id!r} is already in {store.config.uri}; continue it with "
        f"`un0 resume {job_id}` on that store, or choose another --job-id"
    )


def shard_grid(spec: JobSpec, model: ModelFacts, store: ObjectStore) -> ShardGrid:
    """The shards that the spec asks for, or those that suit the hardware which the store knows."""
    if spec.shard_images is not None:
        return ShardGrid(spec.shard_images, "as submitted")
    rates = rates_of(
        store, model_key(model.rev, spec.precision), encoding_key(spec.encoding, spec.compression)
    )
    return choose_grid(spec.count, model.image_size, spec.encoding, rates)


def model_facts(name: str) -> tuple[ModelFacts, ModelWork]:
    """The facts of a model by name or path; a path is made absolute for the replicas."""
    import torch

    from un0 import load_model
    from un0.engine import default_tile
    from un0.memory import cpu_bytes
    from un0.work import images_flops

    known = name in {model.name for model in list_models()}
    located = name if known else str(Path(name).absolute()) if Path(name).exists() else name
    model = load_model(located)
    for note in model.notes:
        logger.warning("model %s: %s", name, note)
    config = model.config
    facts = ModelFacts(
        located,
        model.rev,
        config.num_classes,
        config.image_size,
        model.labels,
    )
    cpu_tile, gpu_tile = (default_tile(config, torch.device(kind)) for kind in ("cpu", "cuda"))
    replica_bytes = cpu_bytes(config, MOST_THREADS)
    return facts, ModelWork(images_flops(config).plain / 1e9, cpu_tile, gpu_tile, replica_bytes)


def _with_model(record: JobRecord, name: str) -> tuple[JobRecord, ModelWork]:
    """The record with its model found under that name, if it is what it was submitted with."""
    facts, work = model_facts(name)
    if facts.rev != record.workload.model_rev:
        raise UserError(
            f"model {name!r} has revision {facts.rev[:12]}, but job {record.workload.job_id} was "
            f"submitted with {record.workload.model_rev[:12]}; give the same file with --model"
        )
    workload = record.workload.model_copy(update={"model": facts.name})
    return record.model_copy(update={"workload": workload}), work


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
