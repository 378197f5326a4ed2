"""What a running job looks like from outside: frozen snapshots for displays and APIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cluster.types import Energy

ReplicaState = Literal["starting", "live", "lost"]
RunState = Literal["starting", "running", "stopping", "completed", "stopped", "failed"]


@dataclass(frozen=True)
class ReplicaView:
    """One replica: where it runs, what it has committed and what it has in hand."""

    replica_id: str
    state: ReplicaState = "starting"
    host_name: str = ""
    hardware: str = ""
    provider: str = ""
    committed_images: int = 0
    open_images: int = 0
    note: str = ""


@dataclass(frozen=True)
class Snapshot:
    """One job at one moment.

    total_images, committed_images: of the job, earlier runs included.
    run_images: committed by this run. open_images: generated but not committed yet.
    startup_s: until the first replica was ready. run_s: since then.
    energy: of all commits of the job. overhead: model load, warm-up and tails of this run.
    generate_share: share of the replicas' time since their first shard in which their device was
    generating; None until a replica has reported.
    """

    job_id: str
    state: RunState
    total_images: int
    committed_images: int
    run_images: int
    open_images: int
    startup_s: float
    run_s: float
    energy: Energy
    overhead: Energy
    generate_share: float | None
    replicas: tuple[ReplicaView, ...]
    reason: str = ""
    retries: int = 0

    @property
    def images_per_s(self) -> float:
        return self.run_images / self.run_s if self.run_s > 0 else 0.0
