"""Run a job on Ray: find or make a coordinator, give it the job, follow it."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actors.connect import LOCAL, connected, target
from cluster.actors.coordinator import Coordinator, end_coordinator
from cluster.actors.options import FleetOptions, ReplicaOptions, RunOptions, RunPlan
from cluster.actors.reasons import plain, reason_of
from cluster.actors.room import RUN_BYTES, room_for
from cluster.errors import Fatal, UserError
from cluster.metering.hardware import MOST_THREADS
from cluster.progress import FleetView, Snapshot
from cluster.storage.object_store import StoreConfig
from un0.machine import memory_here

ANSWER_S = 10.0
START_S = 120.0
SILENCE_S = 600.0  # a coordinator speaks every quarter of a second, once it has read the job
SHARED_TRIES = 10
NAMESPACE = "un0"
logger = logging.getLogger(__name__)


class JobRun:
    """A job that runs once it is iterated over, for snapshots; ``stop`` ends it early and
    resumably."""

    def __init__(self, coordinator: Any, plan: RunPlan) -> None:
        self._coordinator = coordinator
        self._plan = plan

    def __iter__(self) -> Iterator[Snapshot]:
        snapshots = self._coordinator.run.options(num_returns="streaming").remote(self._plan)
        try:
            while True:
                ready, _ = ray.wait([snapshots], timeout=SILENCE_S, fetch_local=False)
                if not ready:
                    raise Fatal(
                        f"the coordinator has said nothing for {SILENCE_S:.0f} s; what is "
                        "committed stays, `un0 resume` goes on"
                    )
                try:
                    reference = next(snapshots)
                except StopIteration:
                    return
                yield ray.get(reference)
        except RayError as error:
            raise Fatal(
                f"the coordinator was lost ({plain(error)}); what is committed stays, `un0 resume` "
                "goes on"
            ) from None

    def stop(self) -> None:
        self._coordinator.stop.remote(self._plan.workload.job_id)


@contextmanager
def job_run(plan: RunPlan, store: StoreConfig, options: RunOptions) -> Iterator[JobRun]:
    """All that the job's run needs, up and answering; on exit every process of this call is gone.

    Nothing is in the store yet, and nothing runs before the JobRun is iterated over. On a cluster
    that was there before, the job is given to the coordinator that all runs with this store share,
    and runs on if this process dies; with ``replicas`` it gets one of its own. Raises UserError
    when there is no Ray to run on or it has no room for the replicas.
    """
    with connected(options) as cluster_id:
        if cluster_id == LOCAL or options.replicas is not None:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            most = None
            if cluster_id == LOCAL:
                most = room_for(memory_here(), plan.facts.cpu_bytes, run_bytes=RUN_BYTES)
            replicas, share = fit(options, nodes, most)
            coordinator = _own(FleetOptions(store, cluster_id, share, replicas))
            try:
                yield JobRun(coordinator, plan)
            finally:
                end_coordinator(coordinator)
        else:
            yield JobRun(_shared(FleetOptions(store, cluster_id, own=False)), plan)


def fleet_view(address: str | None, store: StoreConfig) -> FleetView | None:
    """The fleet that runs share on this cluster with this store; None if no coordinator is there.

    Raises UserError when the cluster cannot be reached.
    """
    if target(address, os.environ) is None:
        return None
    with connected(RunOptions(address=address)):
        try:
            coordinator = ray.get_actor(_name(store), namespace=NAMESPACE)
            view: FleetView | None = ray.get(coordinator.view.remote(), timeout=ANSWER_S)
        except (ValueError, RayError, TimeoutError):
            return None
    return view


def _own(fleet: FleetOptions) -> Any:
    """A coordinator of this run alone, that answers."""
    coordinator = Coordinator.remote(fleet)  # type: ignore[attr-defined]
    try:
        ray.get(coordinator.welcome.remote(), timeout=START_S)
    except (RayError, TimeoutError) as error:
        why = str(error).strip().splitlines()[-1]
        raise Fatal(f"no coordinator could be started on Ray: {why}") from None
    return coordinator


def _shared(fleet: FleetOptions) -> Any:
    """The coordinator that runs with this store share on this cluster, started if need be."""
    options = Coordinator.options(  # type: ignore[attr-defined]
        name=_name(fleet.store), namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    )
    for _ in range(SHARED_TRIES):
        coordinator = options.remote(fleet)
        try:
            if ray.get(coordinator.welcome.remote(), timeout=START_S):
                return coordinator
        except (RayError, TimeoutError) as error:
            logger.warning("the coordinator does not answer: %s", reason_of(error, "it is silent"))
        time.sleep(1.0)  # until the one that ends is gone, and its name free
    raise Fatal("no coordinator could be started on the Ray cluster; see its logs")


def _name(store: StoreConfig) -> str:
    address = f"{store.uri} {store.endpoint_url}"
    if store.sse:  # a coordinator writes all of its jobs with one encryption
        address += f" {store.sse} {store.sse_kms_key}"
    place = hashlib.sha256(address.encode()).hexdigest()[:16]
    return f"coordinator-{place}"


def fit(
    options: RunOptions, nodes: list[dict[str, float]], most: int | None = None
) -> tuple[int, ReplicaOptions]:
    """(replicas, each one's share) for the Ray resources of each node: GPUs if any, else CPUs.

    A CPU replica gets the threads, up to four, that leave the fewest CPUs over. most: CPU replicas
    that memory has room for, where no number is asked for. Raises UserError if the replicas asked
    for do not fit.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    if gpus:
        room, share = gpus, ReplicaOptions("cuda", 1)
    else:
        wanted = options.replicas or 1
        rooms = {t: sum(n // t for n in cpus) for t in range(1, MOST_THREADS + 1)}
        fitting = [t for t, room in rooms.items() if room >= wanted] or [1]
        threads = max(fitting, key=lambda t: (min(rooms[t], options.replicas or rooms[t]) * t, t))
        room, share = rooms[threads], ReplicaOptions("cpu", threads)
    replicas = options.replicas or (room if gpus or most is None else min(room, most))
    if not 0 < replicas <= room:
        raise UserError(
            f"{replicas or 1} replicas do not fit: the Ray cluster has {gpus} GPUs and "
            f"{sum(cpus)} CPUs on {len(nodes)} nodes, room for {room}; ask for fewer with "
            "--replicas, or add nodes"
        )
    return replicas, share
