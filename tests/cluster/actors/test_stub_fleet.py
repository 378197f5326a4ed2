"""Jobs on a Ray node with made-up GPUs: every millijoule is somebody's, whoever is killed."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest
import ray
from ray.exceptions import RayError

from cluster.actors.node_meter import ReplicaMeter, RunMeter, meter_on
from cluster.ledger.reader import closure_error_mj, energy_dataset, energy_files
from cluster.metering.nvml_sources import NvmlCounter
from cluster.pipeline.publisher import Attempt
from cluster.pipeline.shard_runner import ShardRunner
from cluster.storage.commit import read_commits
from cluster.storage.object_store import ObjectStore, StoreConfig
from cluster.storage.open import open_store
from cluster.types import Workload
from tests.support.nvml_stub import Gpu, NvmlStub, build_nvml_stub
from tests.support.stub_node import play
from un0.sampler import Sampler
from un0.testing import random_model

pytestmark = [pytest.mark.ray, pytest.mark.slow]
Rows = list[dict[str, Any]]
H100, L4 = Gpu("GPU-a", counter_mj=10**6), Gpu("GPU-b", "NVIDIA L4", counter_mj=77)
LOST_MJ, WON_MJ = 5_000_003, {"b0": 300_001, "b1": 400_009}  # spent while they generated
BEFORE_MJ, STRUCK_MJ, AFTER_MJ = 111_111, 222_222, 333_333


class Body:
    """A replica that holds still in the middle of each attempt, until the test lets it go on."""

    def __init__(self, meter: RunMeter, store: StoreConfig, replica_id: str, gpu_uuid: str) -> None:
        sampler = Sampler(random_model(), device="cpu", threads=1)
        size = sampler.image_size
        self._workload = Workload(
            job_id="job", model="test", model_rev="rev", count=24, seed=9, shard_images=8,
            class_ids=(0, 1), width=size, height=size,
        )  # fmt: skip
        view = ReplicaMeter(meter, meter.tenant(replica_id, gpu_uuid))
        assert view.provider == "nvml-counter"
        self._runner = ShardRunner(self._workload, sampler, view, open_store(store, probe=False))
        self._in_the_middle, self._go_on = threading.Event(), threading.Event()

    def pid(self) -> int:
        return os.getpid()

    def run(self, shard: int, attempt_id: str) -> Attempt:
        return self._runner.run(self._workload.shard(shard), attempt_id, self._hold)

    def _hold(self, _: int) -> None:
        self._in_the_middle.set()
        self._go_on.wait()

    def in_the_middle(self) -> None:
        self._in_the_middle.wait()

    def go_on(self) -> None:
        self._go_on.set()

    def hold_again(self) -> None:
        self._in_the_middle.clear()
        self._go_on.clear()


class Node:
    """The driver's side: spends the GPUs' joules between two readings of the meter."""

    def __init__(self, store: StoreConfig) -> None:
        self.stub = NvmlStub.of_this_process()
        self.stub.add(H100, L4)
        self._store = store
        node_id = ray.get_runtime_context().get_node_id()
        self.run = asyncio.run(meter_on(node_id, store, "test", "run"))
        self.meter = self.run.actor
        self.trust()

    def trust(self) -> None:
        """Let the meter read the bare counters. Turned by hand, to the millijoule, they stand still
        for seconds, and would not be believed."""

        def bare(actor: Any) -> None:
            actor._meter._gpu = lambda tenant: NvmlCounter(tenant.gpu_uuid)

        self.at_meter(bare)

    def replica(self, replica_id: str, gpu: Gpu) -> Any:
        body = ray.remote(num_cpus=0, max_concurrency=4)(Body)
        return body.remote(self.run, self._store, replica_id, gpu.uuid)

    def at_meter(self, do: Callable[[Any], Any]) -> Any:
        return ray.get(self.meter.__ray_call__.remote(do))

    def spend(self, gpu: Gpu, energy_mj: int) -> None:
        self.at_meter(lambda actor: actor._meter.sample())
        self.stub.spend(gpu.uuid, energy_mj)
        self.at_meter(lambda actor: actor._meter.sample())

    def begin(self, body: Any, shard: int, attempt_id: str) -> Any:
        """The attempt, once it is in its middle and the meter knows of it."""
        ray.get(body.hold_again.remote())
        attempt = body.run.remote(shard, attempt_id)
        ray.get(body.in_the_middle.remote())
        while not self.at_meter(lambda actor: attempt_id in actor._meter._running):
            pass
        return attempt

    def finish(self, body: Any, attempt: Any) -> int | None:
        """Let it go on to its end, and settle it; its energy."""
        ray.get(body.go_on.remote())
        done = ray.get(attempt)
        ray.get(self.meter.settle.remote({done.record.attempt_id: done.outcome}))
        assert done.outcome == "won"
        return done.record.energy.energy_mj

    def close(self) -> dict[str, int | None]:
        """The counters at the last reading."""
        assert ray.get(self.run.leave())
        return {gpu.uuid: gpu.counter_mj for gpu in self.stub.devices.values()}  # type: ignore[union-attr]


def replica_killed(store: StoreConfig) -> dict[str, Any]:
    node = Node(store)
    a, b = node.replica("ra", H100), node.replica("rb", L4)
    pid = ray.get([a.pid.remote(), b.pid.remote()])[0]
    node.spend(H100, 1_000)
    node.spend(L4, 2_000)
    lost, b0 = node.begin(a, 0, "a0"), node.begin(b, 1, "b0")
    node.spend(H100, LOST_MJ)
    node.spend(L4, WON_MJ["b0"])
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(RayError):
        ray.get(lost)
    at_work = {name: asyncio.run(node.run.at_work(name)) for name in ("ra", "rb", "nobody")}
    node.run.lose("ra")
    won = {"b0": node.finish(b, b0)}
    node.spend(H100, 3_000)
    b1 = node.begin(b, 0, "b1")
    node.spend(L4, WON_MJ["b1"])
    won["b1"] = node.finish(b, b1)
    node.stub.spend(L4.uuid, 4_000)  # after its last sample
    return {"won": won, "counters": node.close(), "at_work": at_work}


def meter_killed(store: StoreConfig) -> dict[str, Any]:
    node = Node(store)
    body = node.replica("rb", L4)
    energies = {}
    before = node.begin(body, 0, "before")
    node.spend(L4, BEFORE_MJ)
    energies["before"] = node.finish(body, before)
    node.at_meter(lambda actor: actor._meter.sample())
    assert node.at_meter(lambda actor: actor._meter._log.flush())  # as it does each minute
    struck = node.begin(body, 1, "struck")
    node.spend(L4, STRUCK_MJ)
    os.kill(node.at_meter(lambda _: os.getpid()), signal.SIGKILL)
    while not is_back(node):
        pass
    node.trust()
    energies["struck"] = node.finish(body, struck)
    after = node.begin(body, 2, "after")
    node.spend(L4, AFTER_MJ)
    energies["after"] = node.finish(body, after)
    node.close()
    return energies


def is_back(node: Node) -> bool:
    try:
        return node.at_meter(lambda actor: not actor._meter._tenants)
    except RayError:
        return False


SCENES = {"replica": replica_killed, "meter": meter_killed}


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the scenes tell, and their stores."""
    stub = build_nvml_stub(tmp_path_factory.mktemp("nvml"))
    paths = {name: tmp_path_factory.mktemp(name) for name in SCENES}
    stores = {name: open_store(str(path)) for name, path in paths.items()}
    outcome = play(__file__, stub, *(f"{name}={path}" for name, path in paths.items()))
    return outcome, stores


@pytest.fixture
def fleet(played: Any) -> tuple[dict[str, Any], ObjectStore]:
    return played[0]["replica"], played[1]["replica"]


@pytest.fixture
def restarted(played: Any) -> tuple[dict[str, Any], ObjectStore]:
    return played[0]["meter"], played[1]["meter"]


def log(store: ObjectStore) -> Rows:
    assert closure_error_mj(store, energy_files(store)) == 0
    rows: Rows = energy_dataset(store).to_table().to_pylist()
    return rows


def sum_mj(rows: Rows, **wanted: Any) -> int:
    return sum(
        row["energy_mj"] for row in rows if all(row[name] == wanted[name] for name in wanted)
    )


def images(store: ObjectStore) -> dict[str, Rows]:
    """The images' rows, by attempt."""
    return {
        record.attempt_id: pq.read_table(io.BytesIO(store.get(record.objects[0].key))).to_pylist()
        for record in read_commits(store, "job").values()
    }


def test_the_buckets_add_up_to_each_gpu_s_own_counter(fleet: Any) -> None:
    outcome, store = fleet
    rows = log(store)
    for gpu in (H100, L4):
        assert sum_mj(rows, hw_id=gpu.uuid) == outcome["counters"][gpu.uuid] - (gpu.counter_mj or 0)
    assert {row["bucket"] for row in rows if row["hw_id"] == "GPU-b"} == {"job", "idle"}
    assert {row["hw_name"] for row in rows if row["zone"] == "gpu"} == {H100.name, L4.name}


def test_what_the_killed_replica_spent_is_wasted(fleet: Any) -> None:
    _, store = fleet
    rows = log(store)
    assert sum_mj(rows, hw_id="GPU-a", bucket="wasted") == LOST_MJ
    assert sum_mj(rows, hw_id="GPU-a", attempt_id="a0") == LOST_MJ
    assert sum_mj(rows, hw_id="GPU-a", bucket="idle") == 4_000
    assert {row["attempt_id"] for row in rows if row["bucket"] == "wasted"} == {"a0"}


def test_the_meter_knows_what_the_killed_replica_was_at(fleet: Any) -> None:
    outcome, _ = fleet
    assert outcome["at_work"] == {"ra": ["job", 0], "rb": ["job", 1], "nobody": None}


def test_the_images_carry_what_their_attempts_took(fleet: Any) -> None:
    outcome, store = fleet
    rows, made = log(store), images(store)
    assert outcome["won"] == WON_MJ
    assert made.keys() == WON_MJ.keys()
    for attempt_id, pictures in made.items():
        assert sum_mj(rows, zone="gpu", bucket="job", attempt_id=attempt_id) == WON_MJ[attempt_id]
        assert {picture["energy_quality"] for picture in pictures} == {"measured_counter"}
        energy_mj = 1e3 * sum(picture["energy_j"] for picture in pictures)
        assert energy_mj == pytest.approx(WON_MJ[attempt_id], abs=1e-3)


def test_generation_outlives_its_meter_and_only_the_struck_attempt_is_unknown(
    restarted: Any,
) -> None:
    energies, store = restarted
    assert energies == {"before": BEFORE_MJ, "struck": None, "after": AFTER_MJ}
    known = {
        name: {p["energy_j"] is not None for p in rows} for name, rows in images(store).items()
    }
    assert known == {"before": {True}, "struck": {False}, "after": {True}}


def test_a_restarted_meter_leaves_a_gap_and_opens_an_epoch(restarted: Any) -> None:
    _, store = restarted
    rows = sorted(
        (row for row in log(store) if row["hw_id"] == "GPU-b"), key=lambda row: row["ts_start"]
    )
    before = [row for row in rows if row["attempt_id"] == "before"]
    after = [row for row in rows if row["attempt_id"] == "after"]
    (gap,) = [row for row in rows if row["bucket"] == "gap"]
    assert (gap["energy_mj"], gap["quality"]) == (None, "missing")
    assert before[-1]["ts_end"] <= gap["ts_start"] < gap["ts_end"] <= after[0]["ts_start"]
    assert before[-1]["meter_epoch"] < after[0]["meter_epoch"]
    assert not [row for row in rows if row["attempt_id"] == "struck"]


if __name__ == "__main__":
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        where = dict(argument.split("=", 1) for argument in sys.argv[1:])
        outcome = {name: SCENES[name](open_store(path).config) for name, path in where.items()}
    finally:
        ray.shutdown()
    print(json.dumps(outcome))  # the last line, after whatever Ray has to say of the dead
