"""The result of a run, for people and scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from cluster.energy import in_joules
from cluster.progress import Snapshot
from cluster.stage_times import StageTimes
from cluster.types import MISSING_ENERGY, Energy, JobRecord, Manifest, SetAside


@dataclass(frozen=True)
class JobResult:
    """The result of a run. The job's energy is that of its commits; None if unknown.

    images: committed in all, by earlier runs too. seconds: since the first replica was ready;
    startup_s: before that. images_per_s: of this run. stage_share: of the replicas' time since
    their first shard, how much device, encode and upload were busy; the bottleneck is the busiest,
    and generate_share the device's. overhead_j: loading and warm-up of this run's replicas; what
    lost attempts and idling took is in the store's energy log. deadline_missed: None without one.
    shard_reason: why shards have shard_images; None where an earlier version chose.
    set_aside: the shards that a job which is completed_with_errors lacks.
    """

    job_id: str
    store: str
    state: str
    images: int
    seconds: float
    images_per_s: float | None
    energy_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    energy_quality: str
    energy_method: str
    overhead_j: float | None
    overhead_low_j: float | None
    overhead_high_j: float | None
    overhead_quality: str
    generate_share: float | None
    stage_share: dict[str, float] | None
    bottleneck: str | None
    startup_s: float
    retries: int
    deadline_missed: bool | None
    reason: str
    shard_images: int
    shard_reason: str | None
    set_aside: tuple[SetAside, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        return asdict(self) | {"set_aside": tuple(s.model_dump() for s in self.set_aside)}


def result_of(snapshot: Snapshot, store: str, record: JobRecord, ended_at: datetime) -> JobResult:
    """The result of a run, from its last snapshot."""
    ran = snapshot.run_images > 0
    return JobResult(
        job_id=snapshot.job_id,
        store=store,
        state=snapshot.state,
        images=snapshot.committed_images,
        seconds=round(snapshot.run_s, 3),
        images_per_s=round(snapshot.images_per_s, 2) if ran else None,
        **_energy_figures(snapshot.energy, snapshot.overhead),
        **_stage_figures(snapshot.stages),
        startup_s=round(snapshot.startup_s, 3),
        retries=snapshot.retries,
        deadline_missed=_deadline_missed(record, ended_at),
        reason=snapshot.reason,
        shard_images=record.workload.shard_images,
        shard_reason=record.shard_reason,
        set_aside=snapshot.set_aside,
    )


def result_of_earlier(manifest: Manifest, store: str, record: JobRecord) -> JobResult:
    """The result of a job that was complete before this run."""
    return JobResult(
        job_id=manifest.job_id,
        store=store,
        state=manifest.state,
        images=manifest.images,
        seconds=0.0,
        images_per_s=None,
        **_energy_figures(manifest.energy if manifest.images else MISSING_ENERGY, MISSING_ENERGY),
        **_stage_figures(StageTimes()),
        startup_s=0.0,
        retries=0,
        deadline_missed=_deadline_missed(record, manifest.finished_at),
        reason="it was complete already",
        shard_images=record.workload.shard_images,
        shard_reason=record.shard_reason,
    )


def _stage_figures(times: StageTimes) -> dict[str, Any]:
    shares = times.shares
    return {
        "generate_share": None if shares is None else shares["device"],
        "stage_share": shares,
        "bottleneck": times.bottleneck,
    }


def _deadline_missed(record: JobRecord, ended_at: datetime) -> bool | None:
    deadline_s = record.spec.deadline
    if deadline_s is None:
        return None
    return (ended_at - record.submitted_at).total_seconds() > deadline_s


def _energy_figures(energy: Energy, overhead: Energy) -> dict[str, Any]:
    return {
        "energy_j": in_joules(energy.energy_mj),
        "energy_low_j": in_joules(energy.low_mj),
        "energy_high_j": in_joules(energy.high_mj),
        "energy_quality": energy.quality,
        "energy_method": energy.method,
        "overhead_j": in_joules(overhead.energy_mj),
        "overhead_low_j": in_joules(overhead.low_mj),
        "overhead_high_j": in_joules(overhead.high_mj),
        "overhead_quality": overhead.quality,
    }
