"""What is said of the service's jobs: the models of ``--json``, HTTP and the Python client.

Times are RFC 3339 with their zone; units are in the names; None is unknown, or not yet.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cluster.stage_times import Stage
from cluster.states import JobState
from cluster.storage.history import EventKind
from cluster.types import EnergyQuality

PAGE_SIZE, MAX_PAGE_SIZE = 50, 1000

ReasonCode = Literal[
    "waiting_for_server",  # nobody runs `un0 serve` on this store, as far as is known
    "waiting_for_turn",  # a server has it, and jobs before it
    "waiting_for_hardware",  # the fleet has none that the job can run on
    "starting_replicas",
    "ray_lost",  # the server reconnects
    "server_lost",  # another server takes it over
    "user_request",
    "energy_budget",
    "owner_limit",
    "credentials",  # of the store; it goes on by itself once they are renewed
    "store_unavailable",
    "model_changed",
    "deadline_passed",
    "shards_failed",
    "internal",
]


class View(BaseModel):
    """Base of what is shown and never stored."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Reason(View):
    """Why a job is in its state. code: for scripts; message: for people, with the fix."""

    code: ReasonCode
    message: str


class Counts(View):
    """Images. in_flight: generated and not committed. failed: of shards that were set aside."""

    total: int
    committed: int
    in_flight: int
    failed: int


class JobEnergy(View):
    """What a job has taken: energy_j of its committed images, with bounds where it is an estimate.

    overhead_j: loading, warm-up and idling for it; wasted_j: attempts without a commit. Both are
    known from the energy log, and None until it has them.
    """

    energy_j: float | None
    low_j: float | None
    high_j: float | None
    quality: EnergyQuality
    method: str
    overhead_j: float | None = None
    wasted_j: float | None = None


class QuoteBasis(View):
    """What a quote rests on, of one hardware class. samples: windows of work measured on it; 0 is
    an estimate from data sheets."""

    hardware: str
    images_per_s: float
    energy_per_image_j: float
    quality: EnergyQuality
    samples: int
    measured_at: datetime | None


class Quote(View):
    """What a job is expected to take. seconds: until its last commit, the queue before it included.

    energy_*: of its images, loading included; None where no hardware is known.
    images_per_hardware: how they would be shared out. cost, carbon_g: at the profiles' prices.
    """

    energy_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    quality: EnergyQuality
    seconds: float | None
    queue_seconds: float | None
    images_per_hardware: dict[str, int]
    cost: float | None
    carbon_g: float | None
    basis: tuple[QuoteBasis, ...]
    notes: tuple[str, ...] = ()


class Results(View):
    """Where a job's images are. uris: of the Parquet files that are committed so far, by shard."""

    uri: str
    shards: int
    committed_shards: int
    committed_images: int
    complete: bool


class JobView(View):
    """A job. spec: as submitted. deadline_at: when it is due."""

    job_id: str
    model: str
    model_rev: str
    owner: str
    labels: dict[str, str]
    spec: dict[str, Any]
    state: JobState
    reason: Reason | None
    queue_position: int | None
    priority: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    deadline_at: datetime | None
    counts: Counts
    rate_images_per_s: float | None
    eta_s: float | None
    bottleneck: Stage | None
    energy: JobEnergy
    quote: Quote | None
    results: Results
    server_id: str | None
    last_event: int


class JobLine(View):
    """A job in a list."""

    job_id: str
    model: str
    owner: str
    labels: dict[str, str]
    state: JobState
    priority: int
    created_at: datetime
    counts: Counts
    energy: JobEnergy


class JobPage(View):
    """A page of a list, the newest first. next_page_token: empty on the last page.

    left: how many jobs follow; None where a filter would have to read them to know.
    """

    jobs: tuple[JobLine, ...]
    next_page_token: str = ""
    left: int | None = None


class JobFilter(View):
    """Which jobs a list has. active: of the service, and not ended. label: all of these. since:
    submitted then or later."""

    state: JobState | None = None
    active: bool = False
    owner: str | None = None
    label: dict[str, str] = Field(default_factory=dict)
    since: datetime | None = None


class EventView(View):
    """An entry of a job's history. id: its number, from 1."""

    id: int
    at: datetime
    kind: EventKind
    state: JobState | None
    message: str
    by: str


class Progress(View):
    """How a job stands, for those who watch it: fields of its JobView."""

    job_id: str
    state: JobState
    reason: Reason | None
    queue_position: int | None
    counts: Counts
    rate_images_per_s: float | None
    eta_s: float | None
    energy: JobEnergy


class ModelView(View):
    """A model that jobs may name. fid: comparable between models of one fid_evaluator only."""

    name: str
    default: bool
    image_size: int
    num_classes: int
    labels: tuple[str, ...]
    params: int
    fid: float | None
    fid_evaluator: str | None
    licence: str | None
