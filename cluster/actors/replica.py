"""A replica: one process with a loaded model, which runs shards for the coordinator."""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import ray

from cluster.actors.node_meter import ReplicaMeter
from cluster.actors.options import ReplicaOptions
from cluster.errors import Fatal, Retryable, UserError
from cluster.execution import PATIENCE_S, Abandoned, Attempt, ShardRunner
from cluster.metering.seat import take_seat
from cluster.storage.object_store import StoreConfig
from cluster.storage.open import open_store
from cluster.types import Energy, Workload
from un0.errors import Un0Error

logger = logging.getLogger(__name__)
HEARTBEAT_S = 0.5
CONCURRENCY = 6  # two leases, their successors, and control calls


@dataclass(frozen=True)
class Ready:
    """The replica takes work. ``startup``: the energy of loading and warming up."""

    host_name: str
    hardware: str
    provider: str
    startup: Energy


@dataclass(frozen=True)
class Heartbeat:
    """Alive; so many images of the shard are generated. trouble: what holds it up, if anything."""

    images: int
    trouble: str


@dataclass(frozen=True)
class Failure:
    """Why it did not work. ``fatal``: it would not work elsewhere or again either."""

    reason: str
    fatal: bool


@dataclass(frozen=True)
class Closed:
    """The replica's last words: seconds since its first shard began, and those generating."""

    window_s: float
    generate_s: float


@ray.remote(max_concurrency=CONCURRENCY, max_restarts=0, max_task_retries=0)
class Replica:
    """Loads one model and runs shards of one workload, generation of the next overlapping with
    encoding and upload of the last."""

    def __init__(
        self, replica_id: str, workload: Workload, store: StoreConfig, options: ReplicaOptions
    ) -> None:
        self._replica_id = replica_id
        self._workload = workload
        self._store_config = store
        self._options = options
        self._threads = ThreadPoolExecutor(CONCURRENCY, thread_name_prefix="shard")

    def node_id(self) -> str:
        """The Ray node it was placed on."""
        return str(ray.get_runtime_context().get_node_id())

    def start(self, node_meter: Any) -> Ready | Failure:
        """Load and warm up. What cannot work anywhere comes back as a fatal Failure."""
        try:
            return self._start(node_meter)
        except (UserError, Un0Error, Fatal) as error:
            return Failure(str(error), fatal=True)

    def _start(self, node_meter: Any) -> Ready:
        from un0 import Sampler, load_model

        loading = f"load-{uuid.uuid4().hex}"
        meter = ReplicaMeter(node_meter, take_seat(self._replica_id, self._options.device))
        meter.begin(loading)
        sampler = Sampler(
            load_model(self._workload.model, mapped=True),
            device=self._options.device,
            precision=self._workload.precision,
            threads=self._options.threads,
        )
        if sampler.model_rev != self._workload.model_rev:
            raise UserError(
                f"model {self._workload.model!r} on {socket.gethostname()} has revision "
                f"{sampler.model_rev[:12]}, but job {self._workload.job_id} was submitted with "
                f"{self._workload.model_rev[:12]}; put the same file on every node"
            )
        sampler.warm_up()
        self._runner = ShardRunner(
            self._workload,
            sampler,
            meter,
            open_store(self._store_config, probe=False),
            commit_here=not self._store_config.single_writer,
        )
        return Ready(socket.gethostname(), meter.hardware, meter.provider, meter.end(loading))

    def run(self, shard: int, attempt_id: str) -> Iterator[Heartbeat | Attempt | Failure]:
        """Make one attempt at the shard: heartbeats while it runs, then its outcome."""
        generated = 0

        def count(images: int) -> None:
            nonlocal generated
            generated += images

        attempt = self._threads.submit(
            self._runner.run, self._workload.shard(shard), attempt_id, count
        )
        while not wait([attempt], timeout=HEARTBEAT_S).done:
            yield Heartbeat(generated, self._runner.trouble)
        yield _outcome(attempt)

    def abandon(self) -> None:
        self._runner.abandon()

    def close(self) -> Closed:
        """Stop; (seconds since the first shard began, seconds of it generating)."""
        clock = self._runner.clock
        closed = Closed(clock.window_s(), clock.busy_s)
        self._runner.close()
        return closed


def _outcome(attempt: Future[Attempt]) -> Attempt | Failure:
    try:
        return attempt.result()
    except Abandoned:
        return Failure("abandoned on request", fatal=False)
    except Retryable as error:  # tried for so long that making the images again would not help
        return Failure(f"the store stayed away for {PATIENCE_S:.0f} s: {error}", fatal=True)
    except (UserError, Un0Error, Fatal) as error:
        return Failure(str(error), fatal=True)
    except Exception as error:  # of this attempt alone: told to the coordinator, which retries
        logger.exception("an attempt failed")
        return Failure(f"{type(error).__name__}: {error}", fatal=False)
