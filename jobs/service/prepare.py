"""Make a job of a spec: every choice made, the model read, the record written."""

from __future__ import annotations

import getpass
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cluster.actors.options import ModelWork
from cluster.clock import utc_now
from cluster.errors import NotFound, UserError
from cluster.hardware.identify import MOST_THREADS
from cluster.storage.commit import create_once
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.profiles import rates_of
from cluster.types import JobRecord, SubmittedSpec, encoding_key, model_key
from jobs.inputs.gather import Gathered, gathered
from jobs.resolve import ModelFacts, plan
from jobs.shard_grid import ShardGrid, choose_grid
from jobs.spec import JobSpec
from un0.catalog import DEFAULT_MODEL, list_models

logger = logging.getLogger(__name__)


class Taken(UserError):
    """The store has a job of this id."""


@dataclass(frozen=True)
class JobInputs:
    """The rows of a job of rows, and its model, by whose classes they were checked."""

    rows: Gathered
    model: ModelFacts
    work: ModelWork


@contextmanager
def inputs_of(spec: JobSpec, store: ObjectStore) -> Iterator[JobInputs | None]:
    """Reads and checks the rows of a spec that has inputs; None of any other. On this machine's
    disk while the context is open. Raises UserError, and Taken early: reading may take long."""
    if spec.inputs is None:
        yield None
        return
    if spec.job_id is not None:
        _refuse_taken(spec.job_id, store)
    facts, work = model_facts(spec.model or DEFAULT_MODEL)
    with gathered(spec.inputs, store, facts) as rows:
        if spec.count not in (None, rows.facts.count):
            raise UserError(
                f"count is {spec.count:,}, but {spec.inputs.source} has {rows.facts.count:,} good "
                f"rows and {rows.facts.inputs.bad_rows:,} bad ones; leave count out"
            )
        yield JobInputs(rows, facts, work)


def prepare(
    spec: JobSpec,
    store: ObjectStore,
    submitted_at: datetime | None = None,
    inputs: JobInputs | None = None,
) -> tuple[JobRecord, ModelWork]:
    """Make every choice that the spec leaves open. Writes nothing. Taken if the job exists.

    submitted_at: as of then, where a submission is repeated; default: now. inputs: of
    ``inputs_of(spec, store)``.
    """
    submitted_at = submitted_at or utc_now()
    spec = spec.due_from(submitted_at)
    if inputs is None:
        (facts, work), rows = model_facts(spec.model or DEFAULT_MODEL), None
    else:
        facts, work, rows = inputs.model, inputs.work, inputs.rows.facts
    count = spec.count if rows is None else rows.count
    if count is None:
        raise ValueError("a spec with inputs needs its rows: see inputs_of")
    grid = shard_grid(spec, count, facts, store)
    workload = plan(spec, facts, grid.images, rows)
    record = JobRecord(
        workload=workload,
        spec=SubmittedSpec.model_validate(spec.model_dump(mode="json", exclude_none=True)),
        owner=spec.owner or user_here(),
        submitted_at=submitted_at,
        shard_reason=grid.reason,
    )
    _refuse_taken(workload.job_id, store)
    return record, work


def submit(record: JobRecord, store: ObjectStore, inputs: JobInputs | None = None) -> None:
    """Write the job to the store, its rows first. Raises Taken if another job of this id exists."""
    job_id = record.workload.job_id
    if inputs is not None:
        inputs.rows.upload(store, job_id)
    spec = record.model_dump_json(indent=2).encode()
    if create_once(store, JobLayout(job_id).spec, spec) != spec:
        raise taken(job_id, store)


def _refuse_taken(job_id: str, store: ObjectStore) -> None:
    with suppress(NotFound):
        store.get(JobLayout(job_id).spec)
        raise taken(job_id, store)


def taken(job_id: str, store: ObjectStore) -> Taken:
    """What is raised of an id that the store has."""
    return Taken(
        f"job {job_id!r} is already in {store.config.uri}; continue it with "
        f"`un0 resume {job_id}` on that store, or choose another --job-id"
    )


def shard_grid(spec: JobSpec, count: int, model: ModelFacts, store: ObjectStore) -> ShardGrid:
    """The shards that the spec asks for, or those that suit the hardware which the store knows."""
    if spec.shard_images is not None:
        return ShardGrid(spec.shard_images, "as submitted")
    rates = rates_of(
        store, model_key(model.rev, spec.precision), encoding_key(spec.encoding, spec.compression)
    )
    return choose_grid(count, model.image_size, spec.encoding, rates)


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


def with_model(record: JobRecord, name: str) -> tuple[JobRecord, ModelWork]:
    """The record with its model found under that name, if it is what it was submitted with."""
    facts, work = model_facts(name)
    if facts.rev != record.workload.model_rev:
        raise UserError(
            f"model {name!r} has revision {facts.rev[:12]}, but job {record.workload.job_id} was "
            f"submitted with {record.workload.model_rev[:12]}; give the same file with --model"
        )
    workload = record.workload.model_copy(update={"model": facts.name})
    return record.model_copy(update={"workload": workload}), work


def user_here() -> str:
    """Whose process this is, for the owner of a job that names none."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
