"""The actor around a node's meter, and the view of it that a replica has."""

from __future__ import annotations

import logging
import socket
import threading
from datetime import timedelta
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.metrics import EnergyMetrics
from cluster.clock import monotonic_ns, utc_now
from cluster.errors import ClusterError
from cluster.metering.node import NodeMeter
from cluster.metering.reading import Device
from cluster.metering.seat import Seat
from cluster.metering.usage import NO_WORK, Outcome, Use, Work
from cluster.storage.energy_log import EnergyLog
from cluster.storage.energy_reader import open_ends
from cluster.storage.object_store import StoreConfig
from cluster.storage.open import open_store
from cluster.types import MISSING_ENERGY, Energy

logger = logging.getLogger(__name__)
SAMPLE_S = 1.0
LONGEST_GAP = timedelta(minutes=15)  # a node away for longer was switched off, not unmetered
ANSWER_S = 10.0  # then a figure is missing: generation never waits for its meter


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)
class NodeMeterActor:
    """One a node and run. Restarted if it dies: its log then has a gap, and generation goes on."""

    def __init__(self, store: StoreConfig, cluster_id: str) -> None:
        opened = open_store(store, probe=False)
        host, now = socket.gethostname(), utc_now()
        try:
            ends = open_ends(opened, host, cluster_id, now)
        except ClusterError as error:
            logger.warning("whether the last energy log broke off is unknown: %s", error)
            ends = {}
        ends = {hw_id: end for hw_id, end in ends.items() if now - end < LONGEST_GAP}
        log = EnergyLog(opened, host, cluster_id=cluster_id)
        # No earlier log of this host began in the same millisecond
        self._meter = NodeMeter(log, int(now.timestamp() * 1000), ends)
        self._closed = threading.Event()
        threading.Thread(target=self._sample, name="sample", daemon=True).start()

    def sit(self, seat: Seat) -> tuple[Device, str]:
        """The device whose energy the replica's images will carry, and who meters it."""
        device = self._meter.sit(seat)
        return device, self._meter.provider(device)

    def begin(self, use: Use) -> None:
        self._meter.begin(use)

    def end(self, use: Use) -> Energy:
        return self._meter.end(use)

    def settle(self, attempt_id: str, outcome: Outcome) -> None:
        self._meter.settle(attempt_id, outcome)

    def lose(self, replica_id: str) -> None:
        self._meter.lose(replica_id)

    def close(self) -> bool:
        """Write the rest of the log; False if the store did not take it."""
        self._closed.set()
        return self._meter.close()

    def _sample(self) -> None:
        metrics = EnergyMetrics()
        while not self._closed.wait(SAMPLE_S):
            try:
                metrics.add(self._meter.sample())
            except Exception:  # a bug here must not end the sampling of everything else
                logger.exception("a sample of the node's meters failed")


def start_node_meter(node_id: str, store: StoreConfig, cluster_id: str) -> Any:
    """The handle of a new meter, pinned to the node."""
    pinned = NodeAffinitySchedulingStrategy(node_id, soft=False)
    return NodeMeterActor.options(scheduling_strategy=pinned).remote(store, cluster_id)  # type: ignore[attr-defined]


class ReplicaMeter:
    """What ``ShardRunner`` needs of the node's meter. Never raises: no answer is ``missing``.

    A meter that was restarted does not know its replicas: after an answer that did not come, the
    replica sits down again before the next attempt.
    """

    def __init__(self, actor: Any, seat: Seat) -> None:
        self._actor = actor
        self._seat = seat
        self._seated = False
        self._begun: dict[str, tuple[int, Work]] = {}
        self.hardware = seat.gpu_name if seat.gpu_uuid else "cpu"
        self.provider = "missing"
        self._sit()

    def _sit(self) -> None:
        try:
            device, self.provider = ray.get(self._actor.sit.remote(self._seat), timeout=ANSWER_S)
        except (RayError, TimeoutError) as error:
            logger.warning("the node's meter does not answer: %s", error)
            return
        self.hardware = f"cpu: {device.hw_name}" if device.hw_type == "cpu" else device.hw_name
        self._seated = True

    def begin(self, attempt_id: str, work: Work = NO_WORK) -> None:
        """The device begins to work on the attempt."""
        if not self._seated:
            self._sit()
        self._begun[attempt_id] = monotonic_ns(), work
        self._actor.begin.remote(self._use(attempt_id, None, None))

    def end(self, attempt_id: str, images: int | None = None) -> Energy:
        """It has ended: what it took."""
        use = self._use(attempt_id, monotonic_ns(), images)
        del self._begun[attempt_id]
        try:
            energy: Energy = ray.get(self._actor.end.remote(use), timeout=ANSWER_S)
        except (RayError, TimeoutError) as error:
            logger.warning("the energy of attempt %s is unknown: %s", attempt_id, error)
            self._seated = False
            return MISSING_ENERGY
        return energy

    def _use(self, attempt_id: str, end_ns: int | None, images: int | None) -> Use:
        start_ns, work = self._begun[attempt_id]
        return Use(
            start_ns=start_ns,
            end_ns=end_ns,
            bucket="overhead" if work is NO_WORK else "job",
            attempt_id=attempt_id,
            replica_id=self._seat.replica_id,
            work=work,
            images=images,
        )
