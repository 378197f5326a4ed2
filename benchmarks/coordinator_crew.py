"""The replicas of benchmarks/coordinator.py: stand-ins without torch or work, tens in a process.

Works with the code of another checkout, too: what it needs of the project is imported in functions.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any

import ray

CREW = 50  # stand-ins a process


def made_up(workload: Any, shard: int, attempt_id: str, pace_s: float) -> Any:
    """An attempt that has won."""
    from cluster.clock import utc_now
    from cluster.pipeline.publisher import Attempt
    from cluster.types import CommitRecord, DataObject, Energy

    own = workload.shard(shard)
    record = CommitRecord(
        job_id=workload.job_id,
        shard=shard,
        start=own.start,
        stop=own.stop,
        attempt_id=attempt_id,
        token=attempt_id,
        objects=(DataObject(key=f"{attempt_id}/i", size_bytes=1, sha256="0" * 64, rows=own.rows),),
        rows=own.rows,
        energy=Energy(energy_mj=1000, quality="measured_counter", method="made up"),
        model_rev=workload.model_rev,
        hardware="made up",
        host_name="here",
        generate_s=max(pace_s, 1e-3),
        committed_at=utc_now(),
    )
    return Attempt(record, "won")


class Runner:
    """A ``ShardRunner`` that makes nothing, at a pace."""

    trouble = ""

    @property
    def times(self) -> Any:
        from cluster.stage_times import StageTimes

        return StageTimes()

    def __init__(self, workload: Any, pace_s: float) -> None:
        self._workload, self._pace_s = workload, pace_s

    def start(self, shard: Any, attempt_id: str, _: Any) -> Future[Any]:
        time.sleep(self._pace_s)
        attempt: Future[Any] = Future()
        attempt.set_result(made_up(self._workload, shard.index, attempt_id, self._pace_s))
        return attempt

    def abandon(self, attempt_ids: Any, within_s: float) -> None: ...


class Crew:
    """Stand-ins of ``Replica``: its methods, with the number of one of them in front."""

    def __init__(self, pace_s: float) -> None:
        self._pace_s = pace_s
        self._workers: dict[int, Any] = {}
        self._turns: dict[int, threading.Lock] = {}

    def node_id(self, _: int) -> str:
        return str(ray.get_runtime_context().get_node_id())

    def start(self, number: int, _: Any) -> Any:
        from cluster.actors.replica import Ready
        from cluster.energy import ZERO_ENERGY

        self._turns[number] = threading.Lock()
        return Ready("here", "made up", "made up", ZERO_ENERGY, 1.0)

    def assign(self, number: int, order: Any) -> None:
        self._worker(number).assign(order)

    def report(self, number: int, within_s: float) -> Any:
        return self._worker(number).report(within_s)

    def _worker(self, number: int) -> Any:
        from cluster.actors.worker import Worker

        if number not in self._workers:
            self._workers[number] = Worker(
                lambda workload: Runner(workload, self._pace_s), lambda _: None
            )
        return self._workers[number]

    def run(self, number: int, workload: Any, shard: int, attempt_id: str) -> Any:
        """As replicas did before: a stream for each attempt."""
        from cluster.actors.replica import Heartbeat

        until_s = time.monotonic() + 0.5
        with self._turns[number]:
            left_s = self._pace_s
            while left_s > 0:
                nap_s = min(left_s, max(0.0, until_s - time.monotonic()))
                time.sleep(nap_s)
                left_s -= nap_s
                if left_s > 0:
                    yield Heartbeat(0, "")
                    until_s += 0.5
        yield made_up(workload, shard, attempt_id, self._pace_s)

    def end_job(self, *_: Any) -> None: ...

    def abandon(self, *_: Any) -> None: ...


class StandIn:
    """A handle to one of a crew."""

    def __init__(self, crew: Any, number: int) -> None:
        self._crew, self._number = crew, number

    def __getattr__(self, method: str) -> Any:
        return Call(getattr(self._crew, method), self._number)


class Call:
    def __init__(self, method: Any, number: int) -> None:
        self._method, self._number = method, number

    def options(self, **options: Any) -> Call:
        return Call(self._method.options(**options), self._number)

    def remote(self, *args: Any) -> Any:
        return self._method.remote(self._number, *args)
