"""The actor around a node's meter, and the view of it that a replica has."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.actors.metrics import EnergyMetrics
from cluster.clock import monotonic_ns, monotonic_s, utc_now
from cluster.errors import ClusterError
from cluster.hardware.identify import host_name
from cluster.ledger.reader import open_ends
from cluster.ledger.reading import Device
from cluster.ledger.usage import NO_WORK, Outcome, Use, Work
from cluster.ledger.writer import EnergyLog
from cluster.metering.node import NodeMeter
from cluster.metering.tenant import Tenant
from cluster.storage.object_store import StoreConfig
from cluster.storage.open import open_store
from cluster.types import MISSING_ENERGY, Energy

logger = logging.getLogger(__name__)
SAMPLE_S = 1.0
LONGEST_GAP = timedelta(minutes=15)  # a node away for longer was switched off, not unmetered
ALONE_S = 330.0  # longer than a run may be without replicas here: a new one gets 300 s to start
START_S = 60.0
RETRY_TICKS = 60
ANSWER_S = 10.0  # then a figure is missing: generation never waits for its meter
AT_WORK_S = 2.0  # nor do the shards of a lost replica


@ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=0)
class NodeMeterActor:
    """The one meter of a node, for all runs on it that use the same store.

    It outlives the run that started it. When the last run has left it writes the rest of the log
    and lets go of the devices; when nobody has come for ``alone_s`` it ends. A run that was
    killed does not leave, but its processes are gone. Restarted if it dies: its log then has a
    gap, and generation goes on.
    """

    def __init__(self, store: StoreConfig, cluster_id: str, alone_s: float = ALONE_S) -> None:
        self._store, self._cluster_id, self._alone_s = store, cluster_id, alone_s
        self._lock = threading.Lock()  # of coming and going
        self._visited_s = monotonic_s()
        self._ending = False
        self._unwritten: list[NodeMeter] = []  # closed, but the store did not take the rest
        self._meter = self._open()
        threading.Thread(target=self._watch, name="sample", daemon=True).start()

    def welcome(self) -> bool:
        """A replica comes to this node. False if this meter is about to end: start another."""
        with self._lock:
            self._visited_s = monotonic_s()
            if self._meter.closed and not self._ending:
                self._meter = self._open()
            return not self._ending

    def admit(self, tenant: Tenant) -> tuple[Device, str]:
        """The device whose energy the replica's images will carry, and who meters it."""
        device = self._meter.admit(tenant)
        return device, self._meter.provider(device)

    def begin(self, use: Use) -> None:
        self._meter.begin(use)

    def end(self, use: Use) -> Energy:
        return self._meter.end(use)

    def at_work(self, replica_id: str) -> Work | None:
        return self._meter.at_work(replica_id)

    def settle(self, outcomes: dict[str, Outcome]) -> None:
        for attempt_id, outcome in outcomes.items():
            self._meter.settle(attempt_id, outcome)

    def lose(self, replica_id: str) -> None:
        self._meter.lose(replica_id)

    def write(self) -> bool:
        """Write what is final now; False if the store did not take it."""
        return self._meter.flush()

    def leave(self, run_id: str) -> bool:
        """The run is over: write what is final, and everything if it was the last one here.

        False if the store did not take it.
        """
        with self._lock:
            self._visited_s = monotonic_s()
            self._meter.leave(run_id)
            return self._close() if self._meter.deserted else self._meter.flush()

    def _open(self) -> NodeMeter:
        opened = open_store(self._store, probe=False)
        host, now = host_name(), utc_now()
        try:
            ends = open_ends(opened, host, self._cluster_id, now)
        except ClusterError as error:
            logger.warning("whether the last energy log broke off is unknown: %s", error)
            ends = {}
        ends = {hw_id: end for hw_id, end in ends.items() if now - end < LONGEST_GAP}
        log = EnergyLog(opened, host, cluster_id=self._cluster_id)
        # No earlier log of this host began in the same millisecond
        return NodeMeter(log, int(now.timestamp() * 1000), ends)

    def _close(self) -> bool:
        written = self._meter.close()
        if not written:
            self._unwritten.append(self._meter)
        return written

    def _watch(self) -> None:
        metrics = EnergyMetrics()
        tick = 0
        while not self._ending:
            time.sleep(SAMPLE_S)
            tick += 1
            try:
                metrics.add(self._meter.sample())
                if tick % RETRY_TICKS == 0:
                    self._unwritten = [left for left in self._unwritten if not left.close()]
                self._end_if_alone()
            except Exception:  # a bug here must not end the sampling of everything else
                logger.exception("a sample of the node's meters failed")
        ray.kill(ray.get_runtime_context().current_actor)

    def _end_if_alone(self) -> None:
        with self._lock:
            if not self._meter.deserted:
                self._visited_s = monotonic_s()
            if monotonic_s() - self._visited_s < self._alone_s:
                return
            if not self._meter.closed:
                self._close()
            self._ending = True


@dataclass(frozen=True)
class RunMeter:
    """One run's dealings with the meter of a node, which other runs may use as well.

    Names of replicas are unique within a run: the meter knows them by both.
    """

    actor: Any
    run_id: str

    def tenant(self, replica_id: str, gpu_uuid: str | None = None, gpu_name: str = "GPU") -> Tenant:
        """The replica as the meter knows it, which is this process."""
        return Tenant(self._name(replica_id), os.getpid(), gpu_uuid, gpu_name, self.run_id)

    def settle(self, outcomes: dict[str, Outcome]) -> None:
        """Say what became of attempts."""
        self.actor.settle.remote(outcomes)

    async def at_work(self, replica_id: str) -> tuple[str, int] | None:
        """(job id, shard) that the replica's device is at, or was when it died; None: unknown."""
        try:
            reply = self.actor.at_work.remote(self._name(replica_id))
            work: Work | None = await asyncio.wait_for(reply, AT_WORK_S)
        except (RayError, TimeoutError):
            return None
        if work is None or work.job_id is None or work.shard is None:
            return None
        return work.job_id, work.shard

    def lose(self, replica_id: str) -> None:
        """Say that the replica is gone."""
        self.actor.lose.remote(self._name(replica_id))

    def write(self) -> None:
        """Have the log written as far as it is final."""
        self.actor.write.remote()

    def leave(self) -> Any:
        """Say that the run is over; a reference to whether the store took what was to write."""
        return self.actor.leave.remote(self.run_id)

    def _name(self, replica_id: str) -> str:
        return f"{self.run_id}/{replica_id}"


async def meter_on(
    node_id: str, store: StoreConfig, cluster_id: str, run_id: str, alone_s: float = ALONE_S
) -> RunMeter:
    """The meter of the node, started if there is none yet. Ask for each replica anew.

    One that does not answer is no reason not to generate: then energy is missing.
    """
    options = NodeMeterActor.options(  # type: ignore[attr-defined]
        name=f"node-meter-{node_id}-{store.digest()}",
        namespace="un0",
        lifetime="detached",
        get_if_exists=True,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    )
    until_s = monotonic_s() + START_S
    while True:
        actor = options.remote(store, cluster_id, alone_s)
        try:
            if await asyncio.wait_for(actor.welcome.remote(), START_S):
                break
        except (RayError, TimeoutError) as error:
            logger.warning("the meter of node %s does not answer: %s", node_id, error)
        if monotonic_s() > until_s:
            break
        await asyncio.sleep(SAMPLE_S)  # until it is gone, and its name free
    return RunMeter(actor, run_id)


class ReplicaMeter:
    """What ``ShardRunner`` needs of the node's meter. Never raises: no answer is ``missing``.

    A meter that was restarted does not know its replicas: after an answer that did not come, the
    replica is made known again before the next attempt.
    """

    def __init__(self, meter: RunMeter, tenant: Tenant) -> None:
        self._actor = meter.actor
        self._tenant = tenant
        self._admitted = False
        self._begun: dict[str, tuple[int, Work]] = {}
        self.hardware = tenant.gpu_name if tenant.gpu_uuid else "cpu"
        self.provider = "missing"
        self._admit()

    def _admit(self) -> None:
        try:
            device, self.provider = ray.get(
                self._actor.admit.remote(self._tenant), timeout=ANSWER_S
            )
        except (RayError, TimeoutError) as error:
            logger.warning("the node's meter does not answer: %s", error)
            return
        self.hardware = f"cpu: {device.hw_name}" if device.hw_type == "cpu" else device.hw_name
        self._admitted = True

    def begin(self, attempt_id: str, work: Work = NO_WORK) -> None:
        """The device begins to work on the attempt."""
        if not self._admitted:
            self._admit()
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
            self._admitted = False
            return MISSING_ENERGY
        return energy

    def _use(self, attempt_id: str, end_ns: int | None, images: int | None) -> Use:
        start_ns, work = self._begun[attempt_id]
        return Use(
            start_ns=start_ns,
            end_ns=end_ns,
            bucket="overhead" if work is NO_WORK else "job",
            attempt_id=attempt_id,
            replica_id=self._tenant.replica_id,
            work=work,
            images=images,
        )
