"""What ``un0 explain`` says: the models that ``--json`` serialises. Units are in the names, or in
``cost_unit``; None is unknown."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import PlainSerializer

from cluster.scheduler.explain import Kind
from cluster.storage.decisions import RivalRecord
from cluster.types import EnergyQuality
from jobs.view import View

#: In JSON ``2026-05-01 00:00:03+00:00``, as this command has always written it.
Moment = Annotated[datetime, PlainSerializer(str, when_used="json")]


class Predicted(View):
    """What assignments were believed to take together."""

    images: int
    seconds: float | None
    energy_j: float | None
    energy_per_image_j: float | None


class Measured(View):
    """What shards took, as their commit records have it. low_j, high_j: bounds of an estimate."""

    images: int
    seconds: float
    energy_j: float | None
    low_j: float | None
    high_j: float | None
    quality: EnergyQuality
    method: str
    energy_per_image_j: float | None


class MeasuredShard(Measured):
    """The same of one shard, and where it ran."""

    hardware: str
    host_name: str
    attempt_id: str
    committed_at: Moment


class LastPlan(View):
    """The scheduler's last plan for the job's model and objective."""

    at: Moment
    why: str
    rivals: tuple[RivalRecord, ...]


class Event(View):
    """Decisions of one kind about one hardware for one reason. shards: [first, stop) of each."""

    kind: Kind
    hardware: str | None
    why: str
    times: int
    first_at: Moment
    last_at: Moment
    replicas: tuple[str, ...]
    shards: tuple[tuple[int, int | None], ...]


class HardwareFacts(View):
    """Of one hardware: its assignments, what they were believed to take, what its commits took."""

    hardware: str
    leases: int
    predicted: Predicted | None
    measured: Measured | None


class AssignmentFacts(View):
    """One assignment of shards first to stop - 1, and the rivals of the plan it followed."""

    at: Moment
    kind: Kind
    why: str
    replica_id: str | None
    hardware: str | None
    first: int
    stop: int
    predicted: Predicted
    run_id: str
    plan: int
    rivals: tuple[RivalRecord, ...]


class SetAsideFacts(View):
    """When and why a shard was set aside."""

    at: Moment
    why: str


class JobFacts(View):
    """The job as asked for. cost_unit: of its rivals' costs. deadline_s: from submission."""

    job_id: str
    model: str
    model_key: str
    objective: str
    cost_unit: str
    priority: int
    deadline_s: float | None
    energy_budget_j: float | None
    images: int
    shards: int
    committed_shards: int


class JobExplanation(JobFacts):
    """A whole job. decisions: how many of each kind."""

    decisions: dict[Kind, int]
    runs: int
    plans: int
    last_plan: LastPlan | None
    events: tuple[Event, ...]
    hardware: tuple[HardwareFacts, ...]


class ShardExplanation(JobFacts):
    """One shard, images start to stop - 1. committed_shards: 1 if it is committed, else 0."""

    shard: int
    start: int
    stop: int
    leases: tuple[AssignmentFacts, ...]
    set_aside: tuple[SetAsideFacts, ...]
    measured: MeasuredShard | None
