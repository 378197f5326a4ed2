"""How a run uses the cluster: nothing here changes a single pixel."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.scheduler.request import JobRequest
from cluster.stopping import STOP_S
from cluster.storage.object_store import StoreConfig
from cluster.types import Workload


@dataclass(frozen=True)
class ReplicaOptions:
    """One replica's share of a node.

    device: ``cpu`` or ``cuda`` (the one GPU that Ray assigns to the replica).
    threads: CPU threads that generate. encoders: those that encode images meanwhile: a GPU's own,
    as many as Ray is asked for; one beside the threads of a CPU replica.
    """

    device: str
    threads: int
    encoders: int = 1

    def resources(self) -> dict[str, float]:
        """The Ray resources a replica asks for."""
        if self.device == "cpu":
            return {"num_cpus": self.threads}
        return {"num_cpus": self.encoders, "num_gpus": 1}


@dataclass(frozen=True)
class RunOptions:
    """replicas: None takes one per GPU, or as many CPU replicas as the cluster has room for; a
    number makes the run one with replicas of its own, that shares no coordinator.
    address: of an existing Ray cluster; None takes RAY_ADDRESS, else starts a local one.
    stop_within_s: how long a stop may take that the user asks for.
    """

    replicas: int | None = None
    address: str | None = None
    stop_within_s: float = STOP_S


@dataclass(frozen=True)
class FleetOptions:
    """What a coordinator works with.

    cluster_id: as the energy log knows the cluster. share, replicas: so many replicas of that
    size; None takes what every node has room for. cap_w: watts that all may draw together.
    own: the coordinator is one run's own and ends with it; else it ends when nobody needs it.
    """

    store: StoreConfig
    cluster_id: str
    share: ReplicaOptions | None = None
    replicas: int | None = None
    cap_w: float | None = None
    own: bool = True


@dataclass(frozen=True)
class ModelWork:
    """The work in an image of a model, and the images of an engine call by kind of device.

    cpu_bytes: memory that the model adds to a CPU replica's process.
    """

    gflop_per_image: float
    cpu_tile: int
    gpu_tile: int
    cpu_bytes: int = 0


@dataclass(frozen=True)
class RunRequest:
    """A job with every choice made. request.deadline_s: seconds from now.

    facts: of the model, by which unmeasured hardware is judged.
    epoch: of a job of the service, the claim that its server has made; None: the run claims itself.
    """

    workload: Workload
    request: JobRequest
    facts: ModelWork
    epoch: int | None = None
