"""Resolve a job spec: make every choice it leaves open, so that any machine can resume it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from cluster.clock import utc_now
from cluster.types import Inputs, Workload
from jobs.spec import JobSpec
from un0.catalog import resolve_classes


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that a job needs before its weights are loaded."""

    name: str
    rev: str
    num_classes: int
    image_size: int
    labels: tuple[str, ...]


@dataclass(frozen=True)
class RowFacts:
    """Facts about the rows of a job of rows. class_ids: those there are. count: of them."""

    inputs: Inputs
    count: int
    class_ids: tuple[int, ...]


def plan(
    spec: JobSpec, model: ModelFacts, shard_images: int, rows: RowFacts | None = None
) -> Workload:
    """The workload of this spec. Raises InputError on classes the model does not have.

    rows: needed where the spec has inputs.
    """
    count = spec.count if rows is None else rows.count
    if count is None:
        raise ValueError("a job with inputs needs what is known of its rows")
    names = list(range(model.num_classes)) if spec.classes is None else list(spec.classes)
    return Workload(
        job_id=spec.job_id or new_job_id(),
        model=model.name,
        model_rev=model.rev,
        count=count,
        seed=spec.seed,
        shard_images=shard_images,
        class_ids=rows.class_ids
        if rows is not None
        else tuple(resolve_classes(names, model.labels, model.num_classes)),
        class_weights=tuple(spec.classes.values()) if isinstance(spec.classes, dict) else None,
        labels=model.labels,
        width=model.image_size,
        height=model.image_size,
        encoding=spec.encoding,
        precision=spec.precision,
        compression=spec.compression,
        inputs=None if rows is None else rows.inputs,
    )


def new_job_id() -> str:
    """A unique job id that sorts by time of submission."""
    return f"{utc_now():%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
