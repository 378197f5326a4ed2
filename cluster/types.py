"""Types that all parts of the cluster share. Units are in the names; missing is None.

Plain values are frozen dataclasses. What is written to a store as JSON is a strict pydantic
model with a ``schema_version``, so that a reader refuses what it does not understand.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveInt,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
)

from cluster.states import JobState

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

EnergyQuality = Literal["measured_counter", "measured_power", "estimated", "missing"]
QUALITIES: tuple[EnergyQuality, ...] = get_args(EnergyQuality)
"""How energy is known, the surest first."""
Precision = Literal["fp32", "bf16", "fp16", "int8", "fp8", "fp8-full"]
ImageEncoding = Literal["png", "webp", "jpeg", "raw"]
Compression = Literal["none", "lz4", "zstd"]

RAW_COMPRESSION: Compression = "zstd"  # where nobody chose

SCHEMA_VERSION: Literal[1] = 1


class Record(BaseModel):
    """Base of everything written as JSON: immutable, strict, no unknown field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Shard:
    """A run of consecutive images of a job: the unit of work, retry and commit."""

    job_id: str
    index: int
    start: int
    stop: int

    @property
    def rows(self) -> int:
        return self.stop - self.start


class Inputs(Record):
    """The rows that a job's images are of, one each, as they lie in its store.

    digest: SHA-256 of the SHA-256s of the parts, hexadecimal and in order; part of their keys.
    part_rows: of each part but the last. columns: those that images carry on, in order.
    seeded: rows may have seeds of their own. bad_rows: of the source; the job is without them.
    """

    digest: str
    part_rows: PositiveInt
    columns: tuple[str, ...] = ()
    seeded: bool = False
    bad_rows: NonNegativeInt = 0


class Workload(Record):
    """A job with every choice made: what each image is, and how images fall into shards.

    Image i depends on (model_rev, seed, i, class of i) only. ``class_ids`` is dealt out in turn,
    or, with ``class_weights``, in those proportions. ``compression``: of raw images; None where
    nobody chose, and then it is not written either. ``inputs``: of a job of rows: these say of
    which class each image is, and ``class_ids`` which classes there are
    (``cluster.storage.job_rows``).
    """

    job_id: str
    model: str
    model_rev: str
    count: PositiveInt
    seed: int = Field(ge=0, lt=2**64)
    shard_images: PositiveInt
    class_ids: tuple[NonNegativeInt, ...] = Field(min_length=1)
    class_weights: tuple[float, ...] | None = None
    labels: tuple[str, ...] = ()
    width: PositiveInt
    height: PositiveInt
    encoding: ImageEncoding = "png"
    precision: Precision = "fp32"
    compression: Compression | None = Field(default=None, exclude_if=lambda value: value is None)
    inputs: Inputs | None = Field(default=None, exclude_if=lambda value: value is None)

    @property
    def page_compression(self) -> Compression:
        """How pages of images are compressed. Only bare pixels gain by it."""
        if self.encoding != "raw":
            return "none"
        return self.compression or RAW_COMPRESSION

    @property
    def encoding_key(self) -> str:
        """How its images are written, as profiles and the scheduler know it."""
        return encoding_key(self.encoding, self.compression)

    @property
    def num_shards(self) -> int:
        return -(-self.count // self.shard_images)

    def shard(self, index: int) -> Shard:
        start = index * self.shard_images
        return Shard(self.job_id, index, start, min(start + self.shard_images, self.count))

    def shards(self) -> Iterator[Shard]:
        return map(self.shard, range(self.num_shards))

    def classes_of(self, start: int, stop: int) -> NDArray[np.int64]:
        """Class ids (stop - start,) of images start..stop-1, a function of the index alone.

        Not of a job of rows: raises ValueError.
        """
        import numpy as np  # not at the top: listing jobs needs none of it

        if self.inputs is not None:
            raise ValueError(f"the classes of job {self.job_id} are in its rows")

        indices = np.arange(start, stop, dtype=np.uint64)
        ids = np.asarray(self.class_ids, dtype=np.int64)
        if self.class_weights is None:
            return ids[(indices % np.uint64(len(ids))).astype(np.int64)]
        # Weyl sequence of the golden ratio: the proportions hold closely over every run of images
        points = (indices + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        share = np.cumsum(self.class_weights) / np.sum(self.class_weights)
        picks = np.searchsorted(share, points / 2.0**64, side="right")
        return ids[np.minimum(picks, len(ids) - 1)]

    def label_of(self, class_id: int) -> str | None:
        return self.labels[class_id] if class_id < len(self.labels) else None


class SubmittedSpec(BaseModel):
    """A job's spec as it was submitted: the fields that a cluster goes by, typed.

    All others are kept as they are, and nothing is added when it is written again: specs of older
    and newer versions read and write alike. deadline: seconds from submission. objective: one of
    the scheduler's, unless a newer version wrote it. energy_budget: joules. on_deadline: ``stop``
    ends a job of the service when its deadline passes.
    """

    model_config = ConfigDict(frozen=True, extra="allow")

    deadline: float | None = None
    priority: int = 0
    objective: str = "energy"
    energy_budget: float | None = None
    on_deadline: str = "continue"
    labels: dict[str, str] = Field(default_factory=dict)

    @field_validator("labels", mode="before")
    @classmethod
    def _none_are_no_labels(cls, value: Any) -> Any:
        return {} if value is None else value

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields = write(self)
        return {name: fields[name] for name in fields if name in self.model_fields_set}


class JobRecord(Record):
    """``spec.json``: a job as submitted and as resolved. Never changed once written.

    shard_reason: why shards are as large as they are; None where an earlier version chose.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    workload: Workload
    spec: SubmittedSpec
    owner: str
    submitted_at: datetime
    shard_reason: str | None = Field(default=None, exclude_if=lambda reason: reason is None)


def model_key(model_rev: str, precision: Precision) -> str:
    """The key of what a replica loads, in profiles and in the scheduler."""
    return f"{model_rev}/{precision}"


def encoding_key(encoding: ImageEncoding, compression: Compression | None = None) -> str:
    """The key of a way to write images, in profiles and in the scheduler: ``png``, ``raw/zstd``."""
    return f"raw/{compression or RAW_COMPRESSION}" if encoding == "raw" else encoding


DEFAULT_ENCODING = encoding_key("png")


class Energy(Record):
    """An amount of energy and how it is known. int64 millijoules; None if unknown.

    ``low_mj`` and ``high_mj`` bound an estimate and are None for a measurement.
    """

    energy_mj: NonNegativeInt | None
    low_mj: NonNegativeInt | None = None
    high_mj: NonNegativeInt | None = None
    quality: EnergyQuality
    method: str


MISSING_ENERGY = Energy(energy_mj=None, quality="missing", method="none")


class DataObject(Record):
    """One object named in a commit. ``key`` is relative to the store's root."""

    key: str
    size_bytes: NonNegativeInt
    sha256: str
    rows: NonNegativeInt


class CommitRecord(Record):
    """The record whose existence makes a shard done. By ``token`` a writer recognises its own."""

    schema_version: Literal[1] = SCHEMA_VERSION
    job_id: str
    shard: NonNegativeInt
    start: NonNegativeInt
    stop: PositiveInt
    attempt_id: str
    token: str
    objects: tuple[DataObject, ...]
    rows: NonNegativeInt
    energy: Energy
    model_rev: str
    hardware: str
    host_name: str
    generate_s: float
    committed_at: datetime


class Checkpoint(Record):
    """Commits of a range of shards in one object, in place of whose records it can be read.

    first, stop: the range. shards: of it, those whose commits are held, as ranges (first, stop).
    images, energy: of these together.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    job_id: str
    first: NonNegativeInt
    stop: PositiveInt
    shards: tuple[tuple[NonNegativeInt, PositiveInt], ...]
    images: NonNegativeInt
    energy: Energy

    @property
    def count(self) -> int:
        """Shards whose commits are held."""
        return sum(stop - first for first, stop in self.shards)

    @property
    def whole(self) -> bool:
        """Whether that is all of the range."""
        return self.count == self.stop - self.first


class CheckpointRef(Checkpoint):
    """A checkpoint that is in the store. seal: the part of its key that tells of its contents."""

    seal: str


class Compaction(Record):
    """The record whose existence puts a compacted file of the energy log in its sources' place."""

    schema_version: Literal[1] = SCHEMA_VERSION
    key: str
    size_bytes: NonNegativeInt
    rows: NonNegativeInt
    sources: tuple[str, ...]


class SetAside(Record):
    """A shard that the job ended without, and why."""

    shard: NonNegativeInt
    attempts: PositiveInt
    reason: str


class Manifest(Record):
    """The contents of a finished job. Written once; then all files of the job are committed ones.

    set_aside: the shards that a job which is ``completed_with_errors`` lacks.
    checkpoints: of a large job, those that hold its commits. Then ``commits`` has only what no
        checkpoint holds. Left out of the JSON of a job that has none.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    job_id: str
    state: JobState
    images: NonNegativeInt
    shards: NonNegativeInt
    commits: tuple[CommitRecord, ...]
    energy: Energy
    overhead: Energy
    set_aside: tuple[SetAside, ...] = ()
    finished_at: datetime
    checkpoints: tuple[CheckpointRef, ...] = ()

    @model_serializer(mode="wrap")
    def _as_ever(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Equal to what versions without checkpoints write and read, where there are none."""
        fields: dict[str, Any] = write(self)
        if not self.checkpoints:
            del fields["checkpoints"]
        return fields
