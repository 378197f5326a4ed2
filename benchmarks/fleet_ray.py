"""Joules on a heterogeneous Ray cluster: our scheduler, a pull baseline, and Ray Data.

One cluster of three raylets on this machine: two of one CPU, one of two CPUs that costs more, by
stand-in meters (``UN0_METER_REPLAY``: real CPU time times made-up watts). All make the same images
with the same sampler and deadline, in interleaved rounds; beliefs are learned in a run before.

``merit`` is ``un0 generate``. ``pull`` is the same with every replica awake and taking the next
work there is, as an actor pool does. ``Ray Data`` is ``map_batches`` + ``write_parquet``, whose
workers are metered by the same node meters.

Energy is from the energy log, between submission and the last byte. ``work``: all that processes
of the cluster's nodes caused, loading, lost attempts and Ray's own included. ``all nodes``: with
what idle nodes took, as if none could be switched off.

    python benchmarks/fleet_ray.py [--count 8000] [--rounds 2] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import statistics
import sys
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import ray

from cluster.actors.launch import fleet_view
from cluster.actors.node_meter import ReplicaMeter, RunMeter, meter_on
from cluster.actors.options import RunOptions
from cluster.clock import utc_now
from cluster.ledger.reader import closure_error_mj, energy_dataset, energy_files
from cluster.ledger.usage import Work
from cluster.pipeline.encode import encode_batch
from cluster.storage.object_store import ObjectStore, StoreConfig
from cluster.storage.open import open_store
from cluster.storage.profiles import load_profiles
from jobs import JobSpec
from jobs.follow import run
from jobs.service.prepare import prepare, submit
from un0 import DEFAULT_MODEL, Sampler, load_model

sys.path.insert(0, str(Path(__file__).parents[1]))  # for the raylets with labels
from tests.support.rayfleet import HUNGRY, THRIFTY, RayFleet, ray_fleet

FLEET = (THRIFTY, THRIFTY, HUNGRY)
BATCH = 256  # images of a shard, and of Ray Data's batches
START_S = 10.0  # of the deadline, for start-up
SLACK = 0.7  # of what one thrifty node alone would need: it takes more than one
REST_S = 120.0


@dataclass(frozen=True)
class Run:
    """One run of a system: when, and what the log says of that time."""

    system: str
    began: datetime
    ended: datetime
    job_id: str
    energy_j: dict[str, float] = field(default_factory=lambda: defaultdict(float))

    @property
    def seconds(self) -> float:
        return (self.ended - self.began).total_seconds()

    @property
    def work_j(self) -> float:
        return sum(self.energy_j[b] for b in ("job", "overhead", "wasted", "foreign"))

    @property
    def all_j(self) -> float:
        return self.work_j + self.energy_j["idle"]


class Generate:
    """A worker of Ray Data, known to its node's meter."""

    def __init__(self, store: StoreConfig, cluster_id: str, job_id: str) -> None:
        meter = asyncio.run(meter_on(here(), store, cluster_id, job_id))
        self._meter = meter
        self._view = ReplicaMeter(meter, meter.tenant(uuid.uuid4().hex))
        self._view.begin("loading")
        self._sampler = Sampler(load_model(DEFAULT_MODEL), device="cpu", threads=1)
        self._sampler.warm_up()
        self._view.end("loading")
        self._work = Work(job_id=job_id)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        attempt_id, index = uuid.uuid4().hex, batch["data"]
        self._view.begin(attempt_id, self._work)
        class_ids = index % 10
        images = self._sampler.generate(0, int(index[0]), class_ids)
        encoded = np.array(encode_batch(images, "png").files(), dtype=object)
        self._view.end(attempt_id, len(index))
        self._meter.settle({attempt_id: "won"})
        return {"index": index, "class_id": class_ids, "image": encoded}


def here() -> str:
    return str(ray.get_runtime_context().get_node_id())


class Bench:
    """The cluster, the store with its log, and the runs so far."""

    def __init__(self, fleet: RayFleet, store: ObjectStore, count: int) -> None:
        self.fleet, self.store, self.count = fleet, store, count
        self.runs: list[Run] = []
        self.deadline_s = 0.0

    def ours(self, system: str, objective: str) -> None:
        deadline = self.deadline_s or None
        spec = JobSpec(count=self.count, shard_images=BATCH, deadline=deadline)

        def work(job_id: str) -> None:
            record, model = prepare(spec.model_copy(update={"job_id": job_id}), self.store)
            spec_of_run = record.spec.model_copy(update={"objective": objective})
            record = record.model_copy(update={"spec": spec_of_run})
            options = RunOptions(address=self.fleet.address)
            result = run(record, self.store, options, model, lambda: submit(record, self.store))
            assert result.state == "completed", result

        self._timed(system, work)

    def ray_data(self, out: Path) -> None:
        workers = sum(kind.cpus for kind in FLEET)

        def work(job_id: str) -> None:
            with connected(self.fleet.address) as cluster_id:
                ray.data.DataContext.get_current().enable_progress_bars = False
                index = np.arange(self.count)
                blocks = [index[at : at + BATCH] for at in range(0, self.count, BATCH)]
                (
                    ray.data.from_numpy(blocks)
                    .map_batches(
                        Generate,
                        fn_constructor_args=(self.store.config, cluster_id, job_id),
                        batch_size=BATCH,
                        num_cpus=1,
                        compute=ray.data.ActorPoolStrategy(size=workers),
                    )
                    .write_parquet(str(out / job_id), ray_remote_args={"num_cpus": 0})
                )

        self._timed("Ray Data", work)

    def _timed(self, system: str, work: Callable[[str], None]) -> None:
        job_id, began = f"{system.replace(' ', '-').lower()}-{len(self.runs)}", utc_now()
        work(job_id)
        self.runs.append(Run(system, began, utc_now(), job_id))
        self.rest()

    def rest(self) -> None:
        """Wait until no replica is awake: no run finds one that another has paid for."""
        until_s = time.monotonic() + REST_S
        while time.monotonic() < until_s:
            view = fleet_view(self.fleet.address, self.store.config)
            if view is None or all(seat.state == "parked" for seat in view.seats):
                return
            time.sleep(1.0)
        raise SystemExit("the replicas do not park")

    def meter(self) -> None:
        """Have the nodes metered all the time: for a tenant that does nothing."""
        with connected(self.fleet.address) as cluster_id:
            for node in ray.nodes():
                if node["Alive"] and node["Resources"].get("CPU"):
                    present = RunMeter(
                        asyncio.run(
                            meter_on(node["NodeID"], self.store.config, cluster_id, "benchmark")
                        ).actor,
                        "benchmark",
                    )
                    ray.get(present.actor.admit.remote(present.tenant("nobody")))

    def write_logs(self) -> None:
        with connected(self.fleet.address):
            for found in ray.util.list_named_actors(all_namespaces=True):
                if found["name"].startswith("node-meter"):
                    meter = ray.get_actor(found["name"], namespace=found["namespace"])
                    assert ray.get(meter.leave.remote("benchmark"))

    def charge(self) -> None:
        """Give every run what the log has of its time: rows that reach over its ends in part."""
        assert closure_error_mj(self.store, energy_files(self.store)) == 0
        for row in energy_dataset(self.store).to_table().to_pylist():
            start, end = row["ts_start"], row["ts_end"]
            for done in self.runs:
                both = (min(end, done.ended) - max(start, done.began)).total_seconds()
                if both > 0 and row["energy_mj"] is not None:
                    part = both / (end - start).total_seconds()
                    done.energy_j[row["bucket"]] += part * row["energy_mj"] / 1000

    def thrifty_rate(self) -> float:
        profiles = {profile.hardware: profile for profile in load_profiles(self.store)}
        return profiles[THRIFTY.hardware].of("png").curve[0].images_per_s


class connected:  # noqa: N801
    """Connected to the cluster for a while; gives its name in the log."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __enter__(self) -> str:
        ray.init(address=self._address, log_to_driver=False, logging_level=logging.ERROR)
        return str(ray.get_runtime_context().gcs_address)

    def __exit__(self, *_: object) -> None:
        ray.shutdown()


def table(runs: Sequence[Run], count: int, deadline_s: float) -> list[dict[str, Any]]:
    """Medians of the rounds."""
    rows = []
    for system in dict.fromkeys(done.system for done in runs):
        own = [done for done in runs if done.system == system]
        rows.append(
            {
                "system": system,
                "seconds": statistics.median(done.seconds for done in own),
                "work_mj_per_image": statistics.median(1e3 * done.work_j / count for done in own),
                "all_nodes_mj_per_image": statistics.median(
                    1e3 * done.all_j / count for done in own
                ),
                "misses": sum(done.seconds > deadline_s for done in own),
                "rounds": [
                    {"seconds": done.seconds, **{b: round(j, 1) for b, j in done.energy_j.items()}}
                    for done in own
                ],
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        store = open_store(str(directory / "store"))
        # Ray's own patience with nodes: Ray Data keeps so few cores too busy for a short one
        with ray_fleet(directory, *FLEET, system_config={}) as fleet:
            bench = Bench(fleet, store, args.count)
            bench.meter()
            bench.ours("learning", "throughput")
            bench.deadline_s = START_S + SLACK * args.count / bench.thrifty_rate()
            for _ in range(args.rounds):
                bench.ours("merit", "energy")
                bench.ours("pull", "throughput")
                bench.ray_data(directory / "ray-data")
            bench.write_logs()
            bench.charge()
    rows = table(bench.runs[1:], args.count, bench.deadline_s)
    load = os.getloadavg()[0]
    if args.json:
        facts = {"count": args.count, "deadline_s": bench.deadline_s, "load": load}
        print(json.dumps({**facts, "rows": rows}, indent=2))
        return
    print(f"{args.count:,} images, deadline {bench.deadline_s:.0f} s, load {load:.1f}")
    print(f"{'':10}{'s':>8}{'work mJ/image':>16}{'all nodes mJ/image':>20}{'misses':>8}")
    for row in rows:
        print(f"{row['system']:10}{row['seconds']:8.1f}{row['work_mj_per_image']:16.2f}"
              f"{row['all_nodes_mj_per_image']:20.2f}{row['misses']:8}")  # fmt: skip


if __name__ == "__main__":
    main()
