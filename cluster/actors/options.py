"""How a run uses the cluster: nothing here changes a single pixel."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.storage.object_store import StoreConfig
from cluster.types import Workload


@dataclass(frozen=True)
class ReplicaOptions:
    """One replica's share of a node.

    device: ``cpu`` or ``cuda`` (the one GPU that Ray assigns to the replica).
    threads: CPU threads that generate.
    """

    device: str
    threads: int

    def resources(self) -> dict[str, float]:
        """The Ray resources a replica asks for."""
        if self.device == "cpu":
            return {"num_cpus": self.threads}
        return {"num_cpus": 1, "num_gpus": 1}


@dataclass(frozen=True)
class RunPlan:
    """One run of a job, with every choice made. cluster_id: as the energy log knows the cluster."""

    workload: Workload
    store: StoreConfig
    replicas: int
    options: ReplicaOptions
    cluster_id: str


@dataclass(frozen=True)
class RunOptions:
    """replicas: None takes one per GPU, or as many CPU replicas as the cluster has room for.
    address: of an existing Ray cluster; None takes RAY_ADDRESS, else starts a local one.
    """

    replicas: int | None = None
    address: str | None = None
