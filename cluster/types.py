"""The vocabulary that every part of the cluster shares. Units are in the names; missing is None.

Plain values are frozen dataclasses. What is written to a store as JSON is a strict pydantic
model with a ``schema_version``, so that a reader refuses what it does not understand.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

EnergyQuality = Literal["measured_counter", "measured_power", "estimated", "missing"]
Precision = Literal["fp32", "bf16", "fp16"]
ImageEncoding = Literal["png", "webp", "jpeg", "raw"]
JobState = Literal["running", "completed", "cancelled", "failed"]

SCHEMA_VERSION = 1


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


class Energy(Record):
    """Joules of something, and how they are known. int64 millijoules; None where unknown.

    ``low_mj`` and ``high_mj`` bound an estimate and are None for a measurement.
    """

    energy_mj: NonNegativeInt | None
    low_mj: NonNegativeInt | None = None
    high_mj: NonNegativeInt | None = None
    quality: EnergyQuality
    method: str


MISSING_ENERGY = Energy(energy_mj=None, quality="missing", method="none")


class DataObject(Record):
    """One object that a commit vouches for. ``key`` is relative to the store's root."""

    key: str
    size_bytes: NonNegativeInt
    sha256: str
    rows: NonNegativeInt


class CommitRecord(Record):
    """The record whose existence makes a shard done. ``token`` tells its writer it is its own."""

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


class Manifest(Record):
    """What a finished job consists of: written once, after which its files are clean to glob."""

    schema_version: Literal[1] = SCHEMA_VERSION
    job_id: str
    state: JobState
    images: NonNegativeInt
    shards: NonNegativeInt
    commits: tuple[CommitRecord, ...]
    energy: Energy
    overhead: Energy
    finished_at: datetime
