"""A fleet for a server of the job service: many jobs, without a stream for each.

Every call is bounded in time. Whatever is asked carries the claim of the server that asks (the
job's epoch), so that one which has been taken over for dead can do no harm when it wakes up.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import ray
from ray.exceptions import RayError

from cluster.actors.connect import LOCAL, connected
from cluster.actors.coordinator import end_coordinator
from cluster.actors.launch import own_coordinator, shared_coordinator
from cluster.actors.options import FleetOptions, RunOptions, RunRequest
from cluster.actors.reasons import reason_of
from cluster.errors import FleetLost
from cluster.progress import Snapshot
from cluster.stopping import Stop
from cluster.storage.object_store import StoreConfig

ANSWER_S = 10.0
CLOSE_S = 8.0  # for the meters' logs, when a server with a Ray of its own ends


class ServedFleet:
    """The coordinator, as a server uses it. All calls raise FleetLost when it or Ray is gone, or
    has not answered within ``ANSWER_S``: what was asked may have been done."""

    def __init__(self, coordinator: Any) -> None:
        self._coordinator = coordinator

    def begin(self, run: RunRequest) -> bool:
        """Run the job, or go on with its run under this newer claim. False: not now, ask again."""
        return bool(self._ask(self._coordinator.begin.remote(run)))

    def stop(self, job_id: str, epoch: int, within_s: float, *, hurry: bool = False) -> None:
        """End the job's run soon, unless a newer claim has it; what is generated is committed.

        hurry: give up what is under way.
        """
        self._ask(self._coordinator.stop.remote(job_id, within_s, hurry, epoch))

    def snapshots(self) -> dict[str, Snapshot]:
        """All runs of the service there by job, those that are over too, until they are forgotten.
        Runs of other servers are among them."""
        found: dict[str, Snapshot] = self._ask(self._coordinator.snapshots.remote())
        return found

    def forget(self, job_id: str, epoch: int) -> None:
        """How this run has ended is known."""
        self._ask(self._coordinator.forget.remote(job_id, epoch))

    def close(self) -> None:
        """End every replica; the energy log is written."""
        self._ask(self._coordinator.close.remote(), CLOSE_S)

    def _ask(self, call: Any, limit_s: float = ANSWER_S) -> Any:
        try:
            return ray.get(call, timeout=limit_s)
        except (RayError, TimeoutError) as error:
            reason = reason_of(error, f"it has not answered for {limit_s:.0f} s")
            raise FleetLost(f"the coordinator on Ray was lost: {reason}") from None


@contextmanager
def served_fleet(
    options: RunOptions, store: StoreConfig, stop: Stop | None = None
) -> Iterator[ServedFleet]:
    """A fleet on the cluster of ``options.address``, or on a Ray of this process's own.

    On a cluster it is the coordinator that all runs with this store share, and goes on without this
    process. A Ray of one's own is gone on exit. Raises UserError when there is no Ray to run on,
    Fatal when no coordinator starts, and Stopped when ``stop`` asks for it meanwhile.
    """
    stop = stop or Stop()
    with connected(options, stop) as cluster_id:
        fleet = FleetOptions(store, cluster_id, own=False)
        if cluster_id != LOCAL:
            yield ServedFleet(shared_coordinator(fleet, stop))
            return
        coordinator = own_coordinator(fleet, stop)
        served = ServedFleet(coordinator)
        try:
            yield served
        finally:
            with suppress(FleetLost):
                served.close()
            end_coordinator(coordinator)
