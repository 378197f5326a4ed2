"""Resolve a job spec: make every choice it leaves open, so that any machine can resume it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

from cluster.clock import utc_now
from cluster.types import ImageEncoding, Workload
from jobs.spec import JobSpec
from un0.catalog import resolve_classes

SHARD_BYTES = 32 * 2**20  # of output: large enough for object stores, small enough to lose
MIN_SHARDS = 16  # so that small jobs spread and show progress
ALIGN = (1024, 256, 64)  # images: whole tiles for the engines, of GPUs where shards are large
BYTES_PER_PIXEL: dict[ImageEncoding, float] = {"png": 2.5, "webp": 2.0, "jpeg": 0.8, "raw": 3.0}


@dataclass(frozen=True)
class ModelFacts:
    """Facts about a model that a job needs before its weights are loaded."""

    name: str
    rev: str
    num_classes: int
    image_size: int
    labels: tuple[str, ...]


def plan(spec: JobSpec, model: ModelFacts) -> Workload:
    """The workload of this spec. Raises InputError on classes the model does not have."""
    names = list(range(model.num_classes)) if spec.classes is None else list(spec.classes)
    return Workload(
        job_id=spec.job_id or new_job_id(),
        model=model.name,
        model_rev=model.rev,
        count=spec.count,
        seed=spec.seed,
        shard_images=spec.shard_images
        or default_shard_images(spec.count, model.image_size, spec.encoding),
        class_ids=tuple(resolve_classes(names, model.labels, model.num_classes)),
        class_weights=tuple(spec.classes.values()) if isinstance(spec.classes, dict) else None,
        labels=model.labels,
        width=model.image_size,
        height=model.image_size,
        encoding=spec.encoding,
        precision=spec.precision,
        compression=spec.compression,
    )


def default_shard_images(count: int, image_size: int, encoding: ImageEncoding) -> int:
    """Images per shard: about 32 MB of output, at least 16 shards a job, whole tiles."""
    by_size = int(SHARD_BYTES / (image_size**2 * BYTES_PER_PIXEL[encoding]))
    by_count = -(-count // MIN_SHARDS)
    images = min(by_size, by_count)
    align = next((align for align in ALIGN if 8 * align <= images), ALIGN[-1])
    return max(1, -(-images // align)) * align


def new_job_id() -> str:
    """A unique job id that sorts by time of submission."""
    return f"{utc_now():%Y%m%dT%H%M%S}-{secrets.token_hex(3)}"
