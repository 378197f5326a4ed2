"""Run a job on Ray: connect to a cluster or start one, make a coordinator, follow it."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actors import ray_thread
from cluster.actors.coordinator import Coordinator
from cluster.actors.options import FleetOptions, ReplicaOptions, RunOptions, RunPlan
from cluster.actors.seats import THREADS_PER_REPLICA
from cluster.errors import Fatal, UserError
from cluster.progress import FleetView, Snapshot
from cluster.stopping import REST, Stop, Stopped
from cluster.storage.object_store import StoreConfig

OBJECT_STORE_BYTES = 128 * 2**20  # only control messages pass through it: images go to the store
KNOCK_S = 5.0
LOOK_S = 0.1
ANSWER_S = 10.0
START_S = 60.0
SHARED_TRIES = 10
NAMESPACE = "un0"
LOCAL = "local"
logger = logging.getLogger(__name__)


class JobRun:
    """A job that runs. Iterate over it for snapshots, until it is over, or until the time for
    a stop that was asked for is up.

    own: the run ends with this process; another goes on when its terminal is closed.
    """

    def __init__(self, coordinator: Any, plan: RunPlan, stop: Stop, *, own: bool) -> None:
        self._coordinator = coordinator
        self._job_id = plan.workload.job_id
        self._stop, self._heeded, self._own = stop, 0, own
        self._snapshots = coordinator.run.options(num_returns="streaming").remote(plan)

    def __iter__(self) -> Iterator[Snapshot]:
        heard = False
        try:
            while not self._is_to_leave():
                if self._stop.times and self._own and not heard:
                    raise Stopped
                self._heed()
                if not ray.wait([self._snapshots], timeout=LOOK_S)[0]:
                    continue
                try:
                    reference = next(self._snapshots)
                except StopIteration:
                    return
                yield ray.get(reference)
                heard = True
        except RayError as error:
            why = str(error).strip().splitlines()[-1]
            raise Fatal(
                f"the coordinator was lost ({type(error).__name__}: {why}); what is committed "
                "stays, `un0 resume` goes on"
            ) from None

    def _is_to_leave(self) -> bool:
        """Whether to follow it no longer, though it is not over."""
        stop = self._stop
        detached = stop.first == signal.SIGHUP and not self._own
        return detached or stop.left_s < (1 - REST) * stop.within_s / 2

    def _heed(self) -> None:
        """Pass on what was asked for since the last look."""
        stop = self._stop
        if self._heeded < min(stop.times, 2):
            self._heeded = min(stop.times, 2)
            self._coordinator.stop.remote(
                self._job_id, within_s=max(0.0, stop.left_s), hurry=stop.times > 1
            )


@contextmanager
def job_run(
    plan: RunPlan, store: StoreConfig, options: RunOptions, stop: Stop | None = None
) -> Iterator[JobRun]:
    """Start the job's run; on exit every process this call started is gone, or will be as soon as
    a Ray that was still starting is up.

    On a cluster that was there before, the job is given to the coordinator that all runs with this
    store share, and runs on if this process dies; with ``replicas`` it gets one of its own. Raises
    UserError when the cluster cannot be reached or has no room for the replicas, and Stopped,
    here or while iterating, when ``stop`` asks for it before the run has begun.
    """
    stop = stop or Stop()
    with _connected(options, stop) as cluster_id:
        if cluster_id == LOCAL or options.replicas is not None:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            replicas, share = fit(options, nodes)
            fleet = FleetOptions(store, cluster_id, share, replicas)
            coordinator = Coordinator.remote(fleet)  # type: ignore[attr-defined]
            yield JobRun(coordinator, plan, stop, own=True)
        else:
            coordinator = _shared(FleetOptions(store, cluster_id, own=False))
            yield JobRun(coordinator, plan, stop, own=False)


def fleet_view(address: str | None, store: StoreConfig) -> FleetView | None:
    """The fleet that runs share on this cluster with this store; None if no coordinator is there.

    Raises UserError when the cluster cannot be reached.
    """
    if address is None and not os.environ.get("RAY_ADDRESS"):
        return None
    with _connected(RunOptions(address=address), Stop()):
        try:
            coordinator = ray.get_actor(_name(store), namespace=NAMESPACE)
            view: FleetView | None = ray.get(coordinator.view.remote(), timeout=ANSWER_S)
        except (ValueError, RayError, TimeoutError):
            return None
    return view


@contextmanager
def _connected(options: RunOptions, stop: Stop) -> Iterator[str]:
    """Ray, connected to or started; the name by which the energy log knows the cluster."""
    connecting = ray_thread.begin(lambda: _connect(options))
    try:
        while not wait([connecting], timeout=LOOK_S).done:
            if stop.times:
                raise Stopped
        cluster_id = connecting.result()
        ray_thread.restore_handlers()
        yield cluster_id
    finally:
        ended = ray_thread.end()
        if connecting.done():
            ended.result()


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
            logger.warning("the coordinator does not answer: %s", error)
        time.sleep(1.0)  # until the one that ends is gone, and its name free
    raise Fatal("no coordinator could be started on the Ray cluster; see its logs")


def _name(store: StoreConfig) -> str:
    place = hashlib.sha256(f"{store.uri} {store.endpoint_url}".encode()).hexdigest()[:16]
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
    cpus = os.cpu_count() or 1
    ray.init(
        address="local",
        num_cpus=max(cpus, options.replicas or 1),
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


def fit(options: RunOptions, nodes: list[dict[str, float]]) -> tuple[int, ReplicaOptions]:
    """(replicas, each one's share) for the Ray resources of each node: GPUs if any, else CPUs.

    A CPU replica gets the threads, up to four, that leave the fewest CPUs over. Raises UserError
    if the replicas asked for do not fit.
    """
    gpus = sum(int(node.get("GPU", 0)) for node in nodes)
    cpus = [int(node.get("CPU", 0)) for node in nodes]
    if gpus:
        room, share = gpus, ReplicaOptions("cuda", 1)
    else:
        wanted = options.replicas or 1
        rooms = {t: sum(n // t for n in cpus) for t in range(1, THREADS_PER_REPLICA + 1)}
        fitting = [t for t, room in rooms.items() if room >= wanted] or [1]
        threads = max(fitting, key=lambda t: (min(rooms[t], options.replicas or rooms[t]) * t, t))
        room, share = rooms[threads], ReplicaOptions("cpu", threads)
    replicas = options.replicas or room
    if not 0 < replicas <= room:
        raise UserError(
            f"{replicas or 1} replicas do not fit: the Ray cluster has {gpus} GPUs and "
            f"{sum(cpus)} CPUs on {len(nodes)} nodes, room for {room}; ask for fewer with "
            "--replicas, or add nodes"
        )
    return replicas, share
