"""The meter of a node, on a virtual clock: whose every millijoule was."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cluster.clock import Anchor
from cluster.errors import Retryable
from cluster.hardware.proc import CpuTimes
from cluster.ledger.reader import closure_error_mj, energy_dataset, energy_files, open_ends
from cluster.ledger.reading import Device, Reading
from cluster.ledger.usage import Use, Work
from cluster.ledger.writer import EnergyLog
from cluster.metering.node import NodeMeter
from cluster.metering.source import Source
from cluster.metering.tenant import Tenant
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store

GPU_W, HOST_W = 400, 100
JOB = Work(job_id="job", shard=0)
START = datetime(2026, 1, 1, 12, tzinfo=UTC)


@dataclass
class World:
    """A machine with two GPUs at constant power, and processes that use CPU time."""

    now_ns: int = 10**12
    busy: bool | None = False  # whether others work on the GPUs
    cpu_s: dict[int, float] = field(default_factory=lambda: {1: 0.0, 2: 0.0, 99: 0.0})
    dead: set[int] = field(default_factory=set)

    def clock(self) -> int:
        return self.now_ns

    def cpu(self, pids: Sequence[int]) -> CpuTimes:
        return CpuTimes(
            sum(self.cpu_s.values()),
            {p: self.cpu_s[p] for p in pids if p in self.cpu_s and p not in self.dead},
        )

    def run(self, seconds: float, **busy: float) -> None:
        """Time passes; pN=s: process N uses s seconds of CPU."""
        self.now_ns += int(seconds * 1e9)
        for name, used_s in busy.items():
            self.cpu_s[int(name[1:])] += used_s


@dataclass
class Steady:
    """A source of constant power."""

    world: World
    device: Device
    power_w: int
    provider: str = "test"

    def read(self) -> Reading:
        energy_mj = self.power_w * self.world.now_ns // 10**6
        return Reading(self.world.now_ns, energy_mj, "measured_counter", "test")

    def close(self) -> None:
        pass


class Watched(Steady):
    """One that can see who works on it."""

    def foreign_at_work(self, _: Collection[int]) -> bool | None:
        return self.world.busy


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(str(tmp_path))


def node(world: World, store: ObjectStore, **more: Any) -> NodeMeter:
    def gpu(tenant: Tenant) -> Source:
        assert tenant.gpu_uuid is not None
        return Watched(world, Device(tenant.gpu_uuid, "gpu", "GPU", "gpu"), GPU_W)

    def hosts() -> list[Source]:
        return [Steady(world, Device("package-0", "cpu", "CPU", "package"), HOST_W)]

    log = EnergyLog(store, "host", cluster_id="c", anchor=Anchor(START, 10**12))
    settings = {"hosts": hosts, "gpu": gpu, "cpu_times": world.cpu, "clock_ns": world.clock}
    return NodeMeter(log, 7, **{**settings, **more})


def attempt(world: World, replica: str, name: str, work: Work = JOB) -> Use:
    return Use(world.now_ns, None, "job", name, replica, work)


def over(use: Use, world: World, images: int | None = None) -> Use:
    return Use(use.start_ns, world.now_ns, use.bucket, use.attempt_id, use.replica_id, use.work,
               images)  # fmt: skip


def rows(store: ObjectStore) -> list[dict[str, Any]]:
    assert closure_error_mj(store, energy_files(store)) == 0
    table: list[dict[str, Any]] = energy_dataset(store).to_table().to_pylist()
    return table


def total_j(store: ObjectStore, **wanted: Any) -> float:
    return sum(
        row["energy_mj"] / 1e3
        for row in rows(store)
        if all(row[name] == value for name, value in wanted.items())
    )


def test_an_attempt_on_a_gpu_is_charged_its_board_and_its_host_is_in_the_log(
    world: World, store: ObjectStore
) -> None:
    meter = node(world, store)
    assert meter.admit(Tenant("r0", 1, "GPU-a")).hw_id == "GPU-a"
    use = attempt(world, "r0", "a")
    meter.begin(use)
    world.run(10, p1=2)
    energy = meter.end(over(use, world, images=100))
    assert (energy.energy_mj, energy.quality) == (GPU_W * 10 * 1000, "measured_counter")
    host = meter.host_energy("a")
    assert host is not None
    assert host.energy_mj
    meter.settle("a", "won")
    world.run(5)
    assert meter.close()
    assert total_j(store, bucket="job", zone="gpu") == GPU_W * 10
    assert total_j(store, bucket="job", zone="package") == host.energy_mj / 1e3
    assert total_j(store, bucket="idle", zone="gpu") == GPU_W * 5
    assert total_j(store, bucket="job", zone="package") == HOST_W * 10
    assert sum(row["images"] or 0 for row in rows(store)) == 100


def test_the_host_is_divided_by_cpu_time_and_others_are_foreign(
    world: World, store: ObjectStore
) -> None:
    meter = node(world, store)
    for replica, pid in (("r0", 1), ("r1", 2)):
        assert meter.admit(Tenant(replica, pid)).hw_id == "package-0"
    first, second = attempt(world, "r0", "a"), attempt(world, "r1", "b")
    meter.begin(first)
    meter.begin(second)
    world.run(10, p1=5, p2=10, p99=5)
    energies = [meter.end(over(use, world, images=1)).energy_mj for use in (first, second)]
    assert energies == [HOST_W * 10 * 250, HOST_W * 10 * 500]
    for name in "ab":
        meter.settle(name, "won")
    meter.close()
    assert total_j(store, bucket="foreign") == HOST_W * 10 * 0.25


def test_where_the_module_holds_the_cpu_nothing_is_counted_twice(
    world: World, store: ObjectStore
) -> None:
    meter = node(world, store, hosts=list)
    meter.admit(Tenant("r0", 1, "GPU-a"))
    use = attempt(world, "r0", "a")
    meter.begin(use)
    world.run(10, p1=5)
    assert meter.end(over(use, world, images=1)).energy_mj == GPU_W * 10 * 1000
    with pytest.raises(LookupError):
        meter.admit(Tenant("r1", 2))
    meter.close()
    assert {row["zone"] for row in rows(store)} == {"gpu"}


def test_a_killed_replica_leaves_its_joules_in_wasted(world: World, store: ObjectStore) -> None:
    meter = node(world, store)
    meter.admit(Tenant("r0", 1, "GPU-a"))
    meter.admit(Tenant("r1", 2, "GPU-b"))
    lost, won = attempt(world, "r0", "a"), attempt(world, "r1", "b")
    meter.begin(lost)
    meter.begin(won)
    world.run(4, p1=1, p2=1)
    assert meter.at_work("r0") == JOB
    meter.lose("r0")
    world.run(6, p2=1)
    assert meter.at_work("r0") == JOB, "what it died at"
    meter.end(over(won, world, images=50))
    meter.settle("b", "won")
    assert meter.at_work("r1") is None
    meter.close()
    assert total_j(store, bucket="wasted", hw_id="GPU-a") == GPU_W * 4
    assert total_j(store, bucket="idle", hw_id="GPU-a") == GPU_W * 6
    assert total_j(store, bucket="job", hw_id="GPU-b") == GPU_W * 10
    assert total_j(store, hw_id="GPU-a") == total_j(store, hw_id="GPU-b") == GPU_W * 10


def test_a_use_of_a_stranger_is_refused_and_the_others_go_on(
    world: World, store: ObjectStore
) -> None:
    meter = node(world, store)
    for replica, pid in (("r0", 1), ("r1", 2)):
        meter.admit(Tenant(replica, pid))
    meter.lose("r0")
    late, well = attempt(world, "r0", "a"), attempt(world, "r1", "b")
    with pytest.raises(LookupError, match="r0"):
        meter.begin(late)  # said before it died, heard afterwards
    meter.begin(well)
    world.run(10, p2=10)
    with pytest.raises(LookupError, match="r0"):
        meter.end(over(late, world, images=1))
    assert meter.end(over(well, world, images=1)).energy_mj == HOST_W * 10 * 1000
    meter.close()
    assert {row["attempt_id"] for row in rows(store)} == {"b"}


def test_an_attempt_that_lost_the_race_is_wasted_and_loading_is_overhead(
    world: World, store: ObjectStore
) -> None:
    meter = node(world, store)
    meter.admit(Tenant("r0", 1))
    load = Use(world.now_ns, None, "overhead", "load", "r0")
    meter.begin(load)
    world.run(3, p1=3)
    assert meter.end(over(load, world)).energy_mj == HOST_W * 3 * 1000
    use = attempt(world, "r0", "a")
    meter.begin(use)
    world.run(5, p1=5)
    meter.end(over(use, world, images=10))
    meter.settle("a", "lost")
    meter.close()
    assert total_j(store, bucket="overhead") == HOST_W * 3
    assert total_j(store, bucket="wasted") == HOST_W * 5


def test_long_attempts_are_looked_at_in_between(world: World, store: ObjectStore) -> None:
    meter = node(world, store)
    meter.admit(Tenant("r0", 1))
    use = attempt(world, "r0", "a")
    meter.begin(use)
    for second in range(300):  # busy alone at first, then beside others
        world.run(1, p1=1, p99=0 if second < 150 else 1)
        meter.sample()
    energy = meter.end(over(use, world, images=10))
    meter.settle("a", "won")
    meter.close()
    assert energy.energy_mj == HOST_W * (150 + 75) * 1000
    assert total_j(store, bucket="job") == HOST_W * 225
    assert total_j(store, bucket="foreign") == HOST_W * 75


def test_a_meter_that_comes_back_leaves_a_gap_not_a_zero(world: World, store: ObjectStore) -> None:
    meter = node(world, store)
    meter.admit(Tenant("r0", 1))
    for _ in range(60):
        world.run(1)
        meter.sample()
    meter._log.flush()  # as it does when due; then the node dies
    anchor = meter._log.origin.anchor
    world.run(60)
    ends = open_ends(store, "host", "c", anchor.utc_at(world.now_ns))
    assert "package-0" in ends
    again = node(world, store, open_ends=ends)
    world.run(10)
    again.close()
    (gap,) = [row for row in rows(store) if row["bucket"] == "gap"]
    assert gap["energy_mj"] is None
    assert gap["quality"] == "missing"


def test_a_board_that_others_use_while_we_do_not_is_foreign(
    world: World, store: ObjectStore
) -> None:
    meter = node(world, store)
    meter.admit(Tenant("r0", 1, "GPU-a"))

    def watch(seconds: int, busy: bool | None) -> None:
        world.busy = busy
        for _ in range(seconds):
            world.run(1)
            meter.sample()

    watch(30, False)
    watch(20, True)
    use = attempt(world, "r0", "a")
    meter.begin(use)
    watch(10, True)
    energy = meter.end(over(use, world, images=10))
    meter.settle("a", "won")
    watch(30, None)
    meter.close()
    assert energy.energy_mj == GPU_W * 10 * 1000  # what we use is ours
    assert total_j(store, bucket="foreign", zone="gpu") == GPU_W * 20
    assert total_j(store, bucket="idle", zone="gpu") == GPU_W * 60
    of_gpu = [row for row in rows(store) if row["zone"] == "gpu"]
    assert {row["shared"] for row in of_gpu if row["bucket"] == "job"} == {True}
    assert {row["shared"] for row in of_gpu if row["bucket"] == "idle"} == {False}


def test_runs_that_leave_or_are_killed_free_their_devices_alone(
    world: World, store: ObjectStore
) -> None:
    meter = node(world, store)
    for run, pid in (("one", 1), ("two", 2), ("three", 99)):
        meter.admit(Tenant(f"{run}/r0", pid, f"GPU-{run}", run_id=run))
        meter.begin(attempt(world, f"{run}/r0", run))
    world.run(10, p1=1, p2=1, p99=1)
    meter.leave("one")
    world.run(10, p2=1, p99=1)
    del world.cpu_s[2]  # it was killed, and nobody says so
    meter.sample()
    world.run(10, p99=1)
    with pytest.raises(LookupError):
        meter.begin(attempt(world, "two/r0", "late"))
    assert not meter.deserted
    use = Use(10**12, world.now_ns, "job", "three", "three/r0", JOB, 10)
    assert meter.end(use).energy_mj == GPU_W * 30 * 1000
    meter.settle("three", "won")
    meter.leave("three")
    assert meter.deserted
    assert meter.close()
    wasted = {row["attempt_id"] for row in rows(store) if row["bucket"] == "wasted"}
    assert wasted == {"one", "two"}
    assert total_j(store, bucket="wasted", hw_id="GPU-one") == GPU_W * 10
    assert total_j(store, bucket="wasted", hw_id="GPU-two") == GPU_W * 20


def test_a_closed_meter_can_be_closed_again_until_the_store_takes_it(
    world: World, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    meter = node(world, store)
    world.run(5)

    def away(*_: object) -> None:
        raise Retryable("away")

    with monkeypatch.context() as patch:
        patch.setattr(type(store), "put", away)
        assert not meter.close()
    world.run(5)
    assert meter.sample() == []
    assert meter.close()
    assert total_j(store) == HOST_W * 5


def test_what_a_process_used_until_it_was_killed_is_wasted_not_foreign(
    world: World, store: ObjectStore
) -> None:
    meter = node(world, store)
    meter.admit(Tenant("r0", 1))
    meter.begin(attempt(world, "r0", "a"))
    for _ in range(8):  # less than the time from one cut to the next
        world.run(1, p1=1)
        meter.sample()
    world.dead.add(1)
    meter.sample()
    assert meter.deserted
    assert meter.close()
    assert total_j(store, bucket="wasted") == 8 * HOST_W
    assert total_j(store, bucket="foreign") == 0
