"""Run a job on Ray: find or make a coordinator, give it the job, follow it."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actors.connect import LOCAL, connected, target
from cluster.actors.coordinator import Coordinator, end_coordinator
from cluster.actors.options import FleetOptions, ReplicaOptions, RunOptions, RunRequest
from cluster.actors.ray_thread import LOOK_S
from cluster.actors.reasons import plain, reason_of
from cluster.actors.room import RUN_BYTES, room_for
from cluster.clock import monotonic_s
from cluster.errors import Fatal, UserError
from cluster.hardware.identify import GPU_THREADS, replica_threads
from cluster.progress import FleetView, NodeView, Snapshot
from cluster.stopping import REST, Stop, Stopped
from cluster.storage.object_store import StoreConfig
from un0.machine import memory_here

ANSWER_S = 10.0
START_S = 120.0
SILENCE_S = 600.0  # a coordinator speaks every quarter of a second, once it has read the job
SHARED_TRIES = 10
NAMESPACE = "un0"
logger = logging.getLogger(__name__)


class FollowedJob:
    """A job that runs once it is iterated over, for snapshots, until it is over, or until the
    time for a stop that was asked for is up.

    own: the run ends with this process; another goes on when its terminal is closed.
    """

    def __init__(self, coordinator: Any, run: RunRequest, stop: Stop, *, own: bool) -> None:
        self._coordinator = coordinator
        self._run = run
        self._stop, self._heeded, self._own = stop, 0, own

    def __iter__(self) -> Iterator[Snapshot]:
        snapshots = self._coordinator.run.options(num_returns="streaming").remote(self._run)
        heard, heard_s = False, monotonic_s()
        try:
            while not self._is_to_leave():
                if self._stop.times and self._own and not heard:
                    raise Stopped
                self._heed()
                if not ray.wait([snapshots], timeout=LOOK_S, fetch_local=False)[0]:
                    if monotonic_s() - heard_s > SILENCE_S:
                        raise Fatal(
                            f"the coordinator has said nothing for {SILENCE_S:.0f} s; what is "
                            "committed stays, `un0 resume` goes on"
                        )
                    continue
                try:
                    reference = next(snapshots)
                except StopIteration:
                    return
                yield ray.get(reference)
                heard = True
        except RayError as error:
            raise Fatal(
                f"the coordinator was lost ({plain(error)}); what is committed stays, `un0 resume` "
                "goes on"
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
                self._run.workload.job_id, within_s=max(0.0, stop.left_s), hurry=stop.times > 1
            )


@contextmanager
def job_run(
    run: RunRequest, store: StoreConfig, options: RunOptions, stop: Stop | None = None
) -> Iterator[FollowedJob]:
    """All that the job's run needs, up and answering; on exit every process of this call is gone,
    or will be as soon as a Ray that was still starting is up.

    Nothing is in the store yet, and nothing runs before the result is iterated over. On a cluster
    that was there before, the job is given to the coordinator that all runs with this store share,
    and runs on if this process dies; with ``replicas`` it gets one of its own. Raises UserError
    when there is no Ray to run on or it has no room for the replicas, and Stopped, here or while
    iterating, when ``stop`` asks for it before the run has begun.
    """
    stop = stop or Stop()
    with connected(options, stop) as cluster_id:
        if cluster_id == LOCAL or options.replicas is not None:
            nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
            most = None
            if cluster_id == LOCAL:
                most = room_for(memory_here(), run.facts.cpu_bytes, run_bytes=RUN_BYTES)
            replicas, share = fit(options, nodes, most)
            coordinator = own_coordinator(FleetOptions(store, cluster_id, share, replicas), stop)
            try:
                yield FollowedJob(coordinator, run, stop, own=True)
            finally:
                end_coordinator(coordinator)
        else:
            coordinator = shared_coordinator(FleetOptions(store, cluster_id, own=False), stop)
            yield FollowedJob(coordinator, run, stop, own=False)


def fleet_view(address: str | None, store: StoreConfig) -> FleetView | None:
    """The fleet that runs share on this cluster with this store; None if no coordinator is there.

    Raises UserError when the cluster cannot be reached.
    """
    if target(address, os.environ) is None:
        return None
    with connected(RunOptions(address=address)):
        found = _running(store)
    return None if found is None else found[1]


def cap_fleet(address: str | None, store: StoreConfig, watts: float | None) -> None:
    """Bound what all replicas of the running fleet may draw together; None takes the bound off.

    Raises UserError when no coordinator is running there.
    """
    with _steered(address, store) as (coordinator, _):
        ray.get(coordinator.cap.remote(watts), timeout=ANSWER_S)


def drain_node(
    address: str | None, store: StoreConfig, name: str, within_s: float | None
) -> NodeView:
    """Give the node no more work, and park its replicas when they are done; the node.

    name: its host name or id. within_s: what would end later than that is run elsewhere; None
    lets all end that has begun. Raises UserError when there is no such node, or no coordinator.
    """
    with _steered(address, store) as (coordinator, view):
        node = view.node(name)
        ray.get(coordinator.drain.remote(node.node_id, within_s), timeout=ANSWER_S)
    return node


@contextmanager
def _steered(address: str | None, store: StoreConfig) -> Iterator[tuple[Any, FleetView]]:
    """The coordinator that is to be given a command, and its fleet now."""
    if target(address, os.environ) is None:
        raise UserError(
            "which cluster? give --address, or set RAY_ADDRESS; only a fleet that runs share can "
            "be capped or drained"
        )
    with connected(RunOptions(address=address)):
        found = _running(store)
        if found is None:
            raise UserError(
                f"no coordinator is running there for the store {store.uri}; give the --store of "
                "a job that runs on that cluster"
            )
        try:
            yield found
        except RayError as error:
            raise Fatal(f"the coordinator does not answer: {plain(error)}; try again") from None


def _running(store: StoreConfig) -> tuple[Any, FleetView] | None:
    """The coordinator that runs with this store share, and its fleet; None if there is none."""
    try:
        coordinator = ray.get_actor(_name(store), namespace=NAMESPACE)
        view: FleetView | None = ray.get(coordinator.view.remote(), timeout=ANSWER_S)
    except (ValueError, RayError, TimeoutError):
        return None
    return None if view is None else (coordinator, view)


def own_coordinator(fleet: FleetOptions, stop: Stop) -> Any:
    """A coordinator of this process alone, that answers. Raises Fatal, and Stopped."""
    coordinator = Coordinator.remote(fleet)  # type: ignore[attr-defined]
    try:
        _answer(coordinator.welcome.remote(), stop)
    except (RayError, TimeoutError) as error:
        raise Fatal(f"no coordinator could be started on Ray: {plain(error)}") from None
    return coordinator


def _answer(reference: Any, stop: Stop) -> Any:
    """What is referred to; TimeoutError after ``START_S``, Stopped when ``stop`` asks for it."""
    until_s = monotonic_s() + START_S
    while not ray.wait([reference], timeout=LOOK_S)[0]:
        if stop.times:
            raise Stopped
        if monotonic_s() > until_s:
            raise TimeoutError(f"no answer within {START_S:.0f} s")
    return ray.get(reference)


def shared_coordinator(fleet: FleetOptions, stop: Stop) -> Any:
    """The coordinator that runs with this store share on this cluster, started if need be.
    Raises Fatal, and Stopped."""
    options = Coordinator.options(  # type: ignore[attr-defined]
        name=_name(fleet.store), namespace=NAMESPACE, lifetime="detached", get_if_exists=True
    )
    for _ in range(SHARED_TRIES):
        coordinator = options.remote(fleet)
        try:
            if _answer(coordinator.welcome.remote(), stop):
                return coordinator
        except (RayError, TimeoutError) as error:
            logger.warning("the coordinator does not answer: %s", reason_of(error, "it is silent"))
        time.sleep(1.0)  # until the one that ends is gone, and its name free
    raise Fatal("no coordinator could be started on the Ray cluster; see its logs")


def _name(store: StoreConfig) -> str:
    # A coordinator writes all of its jobs with one encryption
    return f"coordinator-{store.digest(encryption=True)}"


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
        room, share = gpus, ReplicaOptions("cuda", GPU_THREADS)  # CPUs as its node has them
    else:
        threads = replica_threads(*cpus, replicas=options.replicas)
        room, share = sum(n // threads for n in cpus), ReplicaOptions("cpu", threads)
    replicas = options.replicas or (room if gpus or most is None else min(room, most))
    if not 0 < replicas <= room:
        raise UserError(
            f"{replicas or 1} replicas do not fit: the Ray cluster has {gpus} GPUs and "
            f"{sum(cpus)} CPUs on {len(nodes)} nodes, room for {room}; ask for fewer with "
            "--replicas, or add nodes"
        )
    return replicas, share
