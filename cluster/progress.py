"""Frozen snapshots of running jobs and of the fleet, for displays and APIs."""

from __future__ import annotations

from dataclasses import field

from pydantic.dataclasses import dataclass

from cluster.errors import UserError
from cluster.stage_times import StageTimes
from cluster.states import ENDS, JobState, ReplicaState
from cluster.types import Energy, SetAside
from un0.suggest import did_you_mean

SHOWN_OF_ID = 12  # characters of a node's id that are shown
LEAST_OF_ID = 4  # and that must be given


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
    stages: how busy the replicas' stages were, of those that have reported.
    epoch: of the run among the job's; 0 before it has one.
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
    replicas: tuple[ReplicaView, ...]
    reason: str = ""
    retries: int = 0
    note: str = ""  # why nothing is running, while it is not
    set_aside: tuple[SetAside, ...] = ()
    stages: StageTimes = StageTimes()
    epoch: int = 0

    @property
    def is_over(self) -> bool:
        """Whether the run has ended, and nothing of it will change."""
        return self.state in ENDS

    @property
    def images_per_s(self) -> float:
        return self.run_images / self.run_s if self.run_s > 0 else 0.0


@dataclass(frozen=True)
class SlotView:
    """A slot, which is room for one replica on a node: what its replica is doing and why.

    since_s: seconds in it, or idle.
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
    """The fleet as its coordinator sees it. Its names are those of `un0 fleet --json`.

    epoch: the highest of its jobs' (of epochs). seats: the slots. power_w: that its replicas may
    draw now; cap_w: that they may ever. epochs: by job, the number of this run among the job's.
    """

    epoch: int
    nodes: tuple[NodeView, ...]
    seats: tuple[SlotView, ...]
    jobs: tuple[str, ...]
    power_w: float
    cap_w: float | None
    epochs: dict[str, int] = field(default_factory=dict)

    def node(self, name: str) -> NodeView:
        """The node of that host name or id, of which the first characters will do. Raises
        UserError where there is none, or more than one."""
        found = [node for node in self.nodes if name in (node.host_name, node.node_id)]
        if not found and len(name) >= LEAST_OF_ID:
            found = [node for node in self.nodes if node.node_id.startswith(name)]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(node.node_id[:SHOWN_OF_ID] for node in found)
            raise UserError(f"{len(found)} nodes are called {name!r}; name one by its id: {ids}")
        known = {node.host_name: None for node in self.nodes}
        known |= {node.node_id[:SHOWN_OF_ID]: None for node in self.nodes}
        hint = did_you_mean(name, known, then="`un0 fleet` lists the nodes")
        raise UserError(f"the fleet has no node {name!r}; {hint}")
