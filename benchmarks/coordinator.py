"""What a shard costs the coordinator: CPU per shard and per heartbeat, and shards/s.

The coordinator is the real one (controller, scheduler, Ray calls, the node's meter, snapshots four
times a second), in a process of its own; CPU is that of its whole process. Its replicas are
stand-ins without torch or work: each has a thread that "makes" a shard every so often, and tens of
them share an actor process, since 200 processes would measure this machine's memory. What they
report is what real ones report; every call and answer goes through Ray.

Three paces: `idle`, replicas whose one shard takes for ever, gives the CPU of a heartbeat;
`steady`, so many shards/s a replica as a fast device commits; `flat out`, as many as the
coordinator takes in.
With --before, a checkout of this project from before, it runs the same against that code, round by
round in turn.

    python benchmarks/coordinator.py [--replicas 10,50,200] [--rate 4] [--seconds 10] [--rounds 3]
                                     [--before DIR] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import pickle
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ray

CREW = 50  # stand-ins a process
IMAGES = 64  # a shard
FOR_EVER_S = 1e6
SNAPSHOT_S = 0.25  # as the coordinator's actor
WARM_S = 4.0
HERE = Path(__file__).parents[1]


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


class Coordinator:
    """The controller, and its process's CPU time."""

    def __init__(self, store: str, replicas: int, pace_s: float) -> None:
        from cluster.actors.controller import Controller
        from cluster.actors.options import FleetOptions, ReplicaOptions
        from cluster.actors.slots import Slots
        from cluster.storage.open import open_store

        crews = [
            ray.remote(num_cpus=0, max_concurrency=4 * CREW + 4)(Crew).remote(pace_s)
            for _ in range(-(-replicas // CREW))
        ]
        self._numbers = iter(range(10**9))
        self.reports = 0

        def stand_in(*_: Any) -> StandIn:
            number = next(self._numbers)
            return StandIn(crews[number // CREW % len(crews)], number)

        Slots._replica = stand_in  # type: ignore[method-assign]
        self._count_reports()
        options = FleetOptions(
            open_store(store, probe=False).config,
            "benchmark",
            ReplicaOptions("cpu", 1),
            replicas=replicas,
        )
        self._controller = Controller(options)
        self._job: Any = None

    def _count_reports(self) -> None:
        from cluster.actors import shard_runs

        if hasattr(shard_runs.ShardRuns, "_take"):
            take = shard_runs.ShardRuns._take

            def counted(runs: Any, *args: Any) -> None:
                self.reports += 1
                take(runs, *args)

            shard_runs.ShardRuns._take = counted  # type: ignore[method-assign]
        else:
            heard = shard_runs._heard

            async def counting(reports: Any) -> Any:
                async for report in heard(reports):
                    self.reports += 1
                    yield report

            shard_runs._heard = counting

    async def begin(self, shards: int) -> None:
        from cluster.actors.options import ModelWork, RunRequest
        from cluster.scheduler.request import JobRequest
        from cluster.types import Workload

        workload = Workload(
            job_id="job", model="none", model_rev="0" * 64, count=shards * IMAGES, seed=1,
            shard_images=IMAGES, class_ids=tuple(range(10)), width=32, height=32,
        )  # fmt: skip
        request = JobRequest("job", "", workload.count, IMAGES)
        self._main = asyncio.create_task(self._controller.main())
        self._job = await self._controller.submit(
            RunRequest(workload, request, ModelWork(0.01, 64, 64))
        )
        self._shown = asyncio.create_task(self._show())

    async def _show(self) -> None:
        while True:
            pickle.dumps(self._job.snapshot())
            await asyncio.sleep(SNAPSHOT_S)

    async def awake(self) -> int:
        states = [view.state for view in self._job.snapshot().replicas]
        return sum(state == "awake" for state in states)

    async def measure(self, seconds: float) -> dict[str, float]:
        """Over so many seconds."""
        return await self._measured(asyncio.sleep(seconds))

    async def _measured(self, work: Any) -> dict[str, float]:
        images, reports = self._job.snapshot().run_images, self.reports
        cpu_s, wall_s = time.process_time(), time.perf_counter()
        await work
        cpu_s, wall_s = time.process_time() - cpu_s, time.perf_counter() - wall_s
        return {
            "shards": (self._job.snapshot().run_images - images) // IMAGES,
            "reports": self.reports - reports,
            "cpu_s": cpu_s,
            "wall_s": wall_s,
        }

    async def profile(self, seconds: float, path: str) -> None:
        """The same under cProfile: this thread's Python."""
        import cProfile

        profiler = cProfile.Profile()
        profiler.enable()
        await asyncio.sleep(seconds)
        profiler.disable()
        profiler.dump_stats(path)


def measure(replicas: int, pace_s: float, seconds: float, profile: str) -> dict[str, float]:
    """In this process, with the code that it imports."""
    ray.init(
        address="local",
        num_cpus=replicas,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=10**8,
    )
    try:
        with tempfile.TemporaryDirectory() as store:
            actor = ray.remote(num_cpus=0)(Coordinator)
            coordinator = actor.remote(store, replicas, pace_s)
            ray.get(coordinator.begin.remote(10**7))
            while ray.get(coordinator.awake.remote()) < replicas:
                time.sleep(0.2)
            time.sleep(WARM_S)
            if profile:
                ray.get(coordinator.profile.remote(seconds, profile))
            row: dict[str, float] = ray.get(coordinator.measure.remote(seconds))
            return row
    finally:
        ray.shutdown()


def apart(code: Path, replicas: int, pace_s: float, seconds: float, profile: str) -> Any:
    """The same in a process of its own, with the code of that checkout."""
    case = ["--case", f"{replicas},{pace_s},{seconds},{profile}"]
    env = {**os.environ, "PYTHONPATH": str(code), "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [sys.executable, __file__, *case], stdout=subprocess.PIPE, text=True, check=True, env=env,
        stderr=subprocess.DEVNULL, cwd=code,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])


def row_of(code: str, replicas: int, pace: str, rounds: list[dict[str, float]]) -> dict[str, Any]:
    def median(value: Any) -> float:
        return statistics.median(value(r) for r in rounds)

    shards = int(median(lambda r: r["shards"]))
    return {
        "code": code,
        "pace": pace,
        "replicas": replicas,
        "shards": shards,
        "coordinator_cpu_ms_per_shard": (
            median(lambda r: 1e3 * r["cpu_s"] / r["shards"]) if shards else None
        ),
        "shards_per_s": median(lambda r: r["shards"] / r["wall_s"]),
        "cpu_ms_per_heartbeat": (
            median(lambda r: 1e3 * r["cpu_s"] / max(1, r["reports"])) if not shards else None
        ),
        "reports_per_s": median(lambda r: r["reports"] / r["wall_s"]),
        "coordinator_cpu_share": median(lambda r: r["cpu_s"] / r["wall_s"]),
        "rounds": len(rounds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", default="10,50,200")
    parser.add_argument("--rate", type=float, default=4.0, help="shards/s a replica, when steady")
    parser.add_argument("--paces", default="idle,steady,flat out")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", type=Path, help="a checkout to compare with")
    parser.add_argument("--profile", default="", help="write a cProfile of the coordinator there")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        replicas, pace_s, seconds, profile = args.case.split(",")
        print(json.dumps(measure(int(replicas), float(pace_s), float(seconds), profile)))
        return
    paces = {"idle": FOR_EVER_S, "steady": 1 / args.rate, "flat out": 0.0}
    codes = {"now": HERE} | ({"before": args.before.resolve()} if args.before else {})
    rows = []
    for pace in args.paces.split(","):
        for replicas in map(int, args.replicas.split(",")):
            found: dict[str, list[dict[str, float]]] = {code: [] for code in codes}
            for _ in range(args.rounds):
                for code, where in codes.items():
                    found[code].append(
                        apart(where, replicas, paces[pace], args.seconds, args.profile)
                    )
            rows += [row_of(code, replicas, pace, rounds) for code, rounds in found.items()]
            if not args.json:
                for row in rows[-len(codes) :]:
                    show(row, header=row is rows[0])
    if args.json:
        print(json.dumps(rows, indent=2))


def show(row: dict[str, Any], *, header: bool) -> None:
    if header:
        print(f"{'pace':9}{'replicas':>9}{'code':>8}{'shards/s':>10}{'CPU ms/shard':>14}"
              f"{'CPU ms/heartbeat':>18}{'reports/s':>11}{'CPU':>7}")  # fmt: skip

    def number(value: float | None) -> str:
        return "-" if value is None else f"{value:.3f}"

    print(f"{row['pace']:9}{row['replicas']:9}{row['code']:>8}{row['shards_per_s']:10,.0f}"
          f"{number(row['coordinator_cpu_ms_per_shard']):>14}"
          f"{number(row['cpu_ms_per_heartbeat']):>18}{row['reports_per_s']:11,.0f}"
          f"{row['coordinator_cpu_share']:7.0%}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
