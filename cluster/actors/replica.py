"""A replica: one process with a loaded model, which runs shards for the coordinator."""

from __future__ import annotations

import logging
import threading
import uuid
from dataclasses import dataclass

import ray

from cluster.actors.node_meter import ReplicaMeter, RunMeter
from cluster.actors.options import ReplicaOptions
from cluster.actors.outcomes import Failure, Order, Report
from cluster.actors.reasons import plain
from cluster.actors.worker import Worker, failure_of
from cluster.clock import monotonic_s
from cluster.errors import Retryable, UserError
from cluster.hardware.host_share import near_cpus, stay_on
from cluster.hardware.identify import host_name
from cluster.metering.nvml import gpu_bus_ids
from cluster.metering.tenant import device_of
from cluster.pipeline import encode
from cluster.pipeline.shard_runner import ShardRunner
from cluster.pipeline.stages import Lane
from cluster.stage_times import StageTimes
from cluster.storage.object_store import StoreConfig
from cluster.storage.open import open_store
from cluster.types import Energy, Precision, Workload

logger = logging.getLogger(__name__)
CONCURRENCY = 4  # a report that waits, and what is asked meanwhile


@dataclass(frozen=True)
class Ready:
    """The replica takes work. ``startup``: the energy of loading and warming up, in load_s."""

    host_name: str
    hardware: str
    provider: str
    startup: Energy
    load_s: float


@dataclass(frozen=True)
class Load:
    """The model to load: by a name or path that works on the node, its revision, its precision."""

    model: str
    model_rev: str
    precision: Precision


@ray.remote(max_concurrency=CONCURRENCY, max_restarts=0, max_task_retries=0)
class Replica:
    """Holds one model and runs shards of jobs, generation of the next overlapping with encoding
    and upload of the last. Parking it is ending it: only a process's end frees all of a GPU."""

    def __init__(
        self, replica_id: str, load: Load, store: StoreConfig, options: ReplicaOptions
    ) -> None:
        self._replica_id = replica_id
        self._load = load
        self._store_config = store
        self._options = options
        self._runners: dict[str, ShardRunner] = {}  # by job
        self._lock = threading.Lock()

    def node_id(self) -> str:
        """The Ray node it was placed on."""
        return str(ray.get_runtime_context().get_node_id())

    def start(self, node_meter: RunMeter) -> Ready | Failure:
        """Load and warm up. What cannot work anywhere comes back as a fatal Failure."""
        try:
            return self._start(node_meter)
        except Retryable as error:
            return Failure(plain(error), fatal=False)
        except Exception as error:  # of this process, for all that is known: another may do better
            return failure_of(error)

    def _start(self, node_meter: RunMeter) -> Ready:
        from un0 import Sampler, load_model

        began_s = monotonic_s()
        loading = f"load-{uuid.uuid4().hex}"
        gpu_name, gpu_uuid = device_of(self._options.device)
        if gpu_uuid is not None:
            _stay_near(gpu_uuid, self._options.encoders)
        meter = ReplicaMeter(node_meter, node_meter.tenant(self._replica_id, gpu_uuid, gpu_name))
        meter.begin(loading)
        load = self._load
        self._sampler = Sampler(
            load_model(load.model, mapped=True),
            device=self._options.device,
            precision=load.precision,
            threads=self._options.threads,
        )
        if self._sampler.model_rev != load.model_rev:
            raise UserError(
                f"model {load.model!r} on {host_name()} has revision "
                f"{self._sampler.model_rev[:12]}, but the job was submitted with "
                f"{load.model_rev[:12]}; put the same file on every node"
            )
        self._sampler.warm_up()
        encode.warm_up()
        self._meter = meter
        self._store = open_store(self._store_config, probe=False)
        self._lane = Lane(self._options.encoders)
        self._worker = Worker(self._runner, node_meter.settle)
        return Ready(
            host_name(),
            meter.hardware,
            meter.provider,
            meter.end(loading),
            monotonic_s() - began_s,
        )

    def assign(self, order: Order) -> None:
        """Make these shards after those of earlier orders."""
        self._worker.assign(order)

    def report(self, within_s: float) -> Report:
        """What has happened since the last report: within so many seconds, later while there is
        nothing to do, at once if somebody waits for it."""
        return self._worker.report(within_s)

    def abandon(self, assignment_id: int, within_s: float = 0.0) -> None:
        """Give up what of the assignment will not be generated within so many seconds."""
        self._worker.abandon(assignment_id, within_s)

    def end_job(self, job_id: str) -> StageTimes:
        """The job is over; how busy it kept the stages here."""
        with self._lock:
            runner = self._runners.pop(job_id, None)
        if runner is None:
            return StageTimes()
        return runner.times

    def _runner(self, workload: Workload) -> ShardRunner:
        with self._lock:
            if workload.job_id not in self._runners:
                self._runners[workload.job_id] = ShardRunner(
                    workload,
                    self._sampler,
                    self._meter,
                    self._store,
                    commit_here=not self._store_config.single_writer,
                    lane=self._lane,
                )
            return self._runners[workload.job_id]


def _stay_near(gpu_uuid: str, cpus: int) -> None:
    """Keep to the CPUs near the GPU, where the node tells which, if there are as many."""
    bus_id = gpu_bus_ids().get(gpu_uuid)
    near = None if bus_id is None else near_cpus(bus_id)
    if near is not None and len(near) >= cpus:
        stay_on(near)
