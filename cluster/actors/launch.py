"""Run a job on Ray: connect to a cluster or start one, make a coordinator, follow it."""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actors.coordinator import Coordinator
from cluster.actors.options import FleetOptions, ReplicaOptions, RunOptions, RunPlan
from cluster.actors.reasons import plain, reason_of
from cluster.actors.room import RUN_BYTES, check_machine, room_for
from cluster.errors import Fatal, UserError
from cluster.metering.hardware import MOST_THREADS
from cluster.progress import FleetView, Snapshot
from cluster.storage.object_store import StoreConfig
from un0.machine import memory_here, usable_cpus

OBJECT_STORE_BYTES = 128 * 2**20  # only control messages pass through it: images go to the store
KNOCK_S = 5.0
ANSWER_S = 10.0
START_S = 60.0
SHARED_TRIES = 10
NAMESPACE = "un0"
LOCAL = "local"
logger = logging.getLogger(__name__)


class JobRun:
    """A job that runs. Iterate over it for snapshots; ``stop`` ends it early and resumably."""

    def __init__(self, coordinator: Any, plan: RunPlan) -> None:
        self._coordinator = coordinator
        self._job_id = plan.workload.job_id
        self._snapshots = coordinator.run.options(num_returns="streaming").remote(plan)

    def __iter__(self) -> Iterator[Snapshot]:
        try:
            for reference in self._snapshots:
                yield ray.get(reference)
        except RayError as error:
            raise Fatal(
                f"the coordinator was lost ({plain(error)}); what is committed stays, `un0 resume` "
                "goes on"
            ) from None

    def stop(self) -> None:
        self._coordinator.stop.remote(self._job_id)


@contextmanager
def job_run(plan: RunPlan, store: StoreConfig, options: RunOptions) -> Iterator[JobRun]:
    """Start the job's run; on exit every process this call started is gone.

    On a cluster that was there before, the job is given to the coordinator that all runs with this
    store share, and runs on if this process dies; with ``replicas`` it gets one of its own. Raises
    UserError when the cluster cannot be reached or has no room for the replicas.
    """
    cluster_id = _connect(options)
    try:
        if cluster_id == LOCAL or options.replicas is not None:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            most = None
            if cluster_id == LOCAL:
                most = room_for(memory_here(), plan.facts.cpu_bytes, run_bytes=RUN_BYTES)
            replicas, share = fit(options, nodes, most)
            fleet = FleetOptions(store, cluster_id, share, replicas)
            yield JobRun(Coordinator.remote(fleet), plan)  # type: ignore[attr-defined]
        else:
            yield JobRun(_shared(FleetOptions(store, cluster_id, own=False)), plan)
    finally:
        ray.shutdown()


def fleet_view(address: str | None, store: StoreConfig) -> FleetView | None:
    """The fleet that runs share on this cluster with this store; None if no coordinator is there.

    Raises UserError when the cluster cannot be reached.
    """
    if address is None and not os.environ.get("RAY_ADDRESS"):
        return None
    _connect(RunOptions(address=address))
    try:
        coordinator = ray.get_actor(_name(store), namespace=NAMESPACE)
        view: FleetView | None = ray.get(coordinator.view.remote(), timeout=ANSWER_S)
    except (ValueError, RayError, TimeoutError):
        return None
    finally:
        ray.shutdown()
    return view


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


def _connect(options: RunOptions) -> str:
    """Connect, or start a cluster; the name by which the energy log knows it."""
    address = options.address or os.environ.get("RAY_ADDRESS") or None
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if address is not None:
        try:
            _knock(address)
            ray.init(address=address, **quiet)
        except (OSError, RuntimeError, ValueError) as error:
            raise UserError(
                f"cannot reach a Ray cluster at {address!r}: {error}; check --address (or "
                "RAY_ADDRESS) and RAY_AUTH_TOKEN, or leave both out to run on this machine"
            ) from None
        return str(ray.get_runtime_context().gcs_address)
    check_machine()
    ray.init(
        address="local",
        num_cpus=max(usable_cpus(), options.replicas or 1),
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        **quiet,
    )
    return LOCAL


def _knock(address: str) -> None:
    """Raise OSError at once if nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK_S).close()


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
