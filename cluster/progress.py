"""Frozen snapshots of running jobs and of the fleet, for displays and APIs."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.scheduler.request import SetAside
from cluster.states import JobState, ReplicaState
from cluster.types import Energy


@dataclass(frozen=True)
class ReplicaView:
    """One replica: where it runs, what it has committed and what it works on."""

    replica_id: str
    state: ReplicaState = ReplicaState.WAKING
    host_name: str = ""
    hardware: str = ""
    provider: str = ""
    committed_images: int = 0
    open_images: int = 0
    note: str = ""


@dataclass(frozen=True)
class Snapshot:
    """The progress of a job at one moment.

    total_images, committed_images: of the job, earlier runs included.
    run_images: committed by this run. open_images: generated but not committed yet.
    startup_s: until the first replica was ready. run_s: since then.
    energy: of all commits of the job. overhead: model load, warm-up and tails of this run.
    generate_share: share of the replicas' time since their first shard in which their device was
    generating; None until a replica has reported.
    """

    job_id: str
    state: JobState
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
    note: str = ""  # why nothing is running, while it is not
    set_aside: tuple[SetAside, ...] = ()

    @property
    def images_per_s(self) -> float:
        return self.run_images / self.run_s if self.run_s > 0 else 0.0


@dataclass(frozen=True)
class SeatView:
    """One slot of a node: the state of its replica, and why.

    since_s: seconds in this state, or idle.
    """

    replica_id: str
    node_id: str
    host_name: str
    hardware: str
    state: ReplicaState
    model: str
    why: str
    since_s: float
    leases: int  # assignments that it holds; the name is that of `un0 fleet --json`
    power_w: float
    draining: bool


@dataclass(frozen=True)
class NodeView:
    """A node of the cluster. devices: as it reported them, such as GPU names with UUIDs."""

    node_id: str
    host_name: str
    labels: dict[str, str]
    devices: tuple[str, ...]


@dataclass(frozen=True)
class FleetView:
    """The fleet as its coordinator sees it. epoch: of the coordinator."""

    epoch: int
    nodes: tuple[NodeView, ...]
    seats: tuple[SeatView, ...]
    jobs: tuple[str, ...]
    power_w: float
    cap_w: float | None
