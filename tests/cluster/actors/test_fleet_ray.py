"""A heterogeneous fleet on real Ray: raylets of different classes, one coordinator for all runs."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest
import ray

from cluster.actors.launch import cap_fleet, drain_node, fleet_view
from cluster.clock import utc_now
from cluster.errors import UserError
from cluster.ledger.reader import closure_error_mj, energy_dataset, energy_files
from cluster.progress import SlotView
from cluster.storage.commit import read_commits
from cluster.storage.epoch import newest
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from cluster.storage.profiles import load_profiles, save_profile
from tests.support.cli import AT_WORK, Running, running, un0, un0_json
from tests.support.rayfleet import HUNGRY, THRIFTY, RayFleet, images_by_host, ray_fleet

pytestmark = [pytest.mark.ray, pytest.mark.slow]
WAIT_S = 120.0
ASK_S = 5.0  # from reaching a cluster to having asked its coordinator


class World:
    """The fleet, its store, and the command line that uses both."""

    def __init__(self, fleet: RayFleet, store: ObjectStore) -> None:
        self.fleet, self.store = fleet, store

    def job(self, job_id: str, count: int, *more: str) -> tuple[str, ...]:
        return (
            "generate", "--job-id", job_id, "--count", str(count), *self.here, "--json",
            *("--shard-images", "256"), *more,
        )  # fmt: skip

    @property
    def here(self) -> tuple[str, ...]:
        return ("--store", self.store.config.uri, "--address", self.fleet.address)

    def hosts(self, job_id: str) -> Counter[str]:
        return images_by_host(self.store, job_id)

    def committed(self, job_id: str) -> int:
        return len(read_commits(self.store, job_id))

    def replica_states(self) -> dict[str, str]:
        """What the replica of each host is doing."""
        view = un0_json("fleet", *self.here)["fleet"]
        return {seat["host_name"]: seat["state"] for seat in view["seats"]}

    def state(self, job_id: str) -> str:
        jobs = un0_json("jobs", "--store", self.store.config.uri)
        return str(next(job["state"] for job in jobs if job["job_id"] == job_id))

    def assert_whole(self, job_id: str) -> None:
        assert un0_json("verify", job_id, "--store", self.store.config.uri)["ok"] is True

    def images_in(self, seconds: float) -> int:
        """What the cheap hardware alone makes in that time, as far as the fleet has learned."""
        profiles = {profile.hardware: profile for profile in load_profiles(self.store)}
        return int(seconds * profiles[THRIFTY.hardware].of("png").curve[0].images_per_s)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Two nodes, one of which is cheaper and slower, and a store that knows it."""
    directory = tmp_path_factory.mktemp("fleet")
    store = open_store(str(directory / "store"))
    for kind in (THRIFTY, HUNGRY):
        save_profile(store, kind.profile(), utc_now())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        with ray_fleet(directory, THRIFTY, HUNGRY) as fleet:
            yield World(fleet, store)


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s, "waited in vain"
        time.sleep(0.2)


def result_of(command: Running) -> Any:
    assert command.wait() == 0, command.stdout + command.stderr
    return json.loads(command.stdout)


def kill_driver(command: Running) -> None:
    """kill -9 to the command alone, as when its terminal's machine is lost."""
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait()


@contextlib.contextmanager
def standing_still(world: World) -> Iterator[None]:
    """Replicas make nothing meanwhile, so that no job ends however slow this machine is."""
    replicas = world.fleet.processes("Replica")
    for replica in replicas:
        replica.suspend()
    try:
        yield
    finally:
        for replica in replicas:
            with contextlib.suppress(psutil.NoSuchProcess):  # it was silent for too long
                replica.resume()


def is_connected(command: Running, address: str) -> bool:
    """Whether it has reached the cluster."""
    port = int(address.rpartition(":")[2])
    found = psutil.Process(command.process.pid).net_connections("tcp")
    return any(c.raddr and c.raddr.port == port and c.status == "ESTABLISHED" for c in found)


def test_without_a_deadline_work_goes_where_an_image_costs_least(world: World) -> None:
    done = un0(*world.job("cheap", 4000))
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.hosts("cheap") == {"thrifty-1": 4000}
    assert world.replica_states()["hungry-2"] == "parked", "nor was it woken in vain"
    result = json.loads(done.stdout)
    assert result["energy_quality"] == "estimated"
    assert result["energy_method"].startswith("replay")


def test_a_deadline_that_the_cheap_node_cannot_meet_brings_in_the_dear_one(world: World) -> None:
    done = un0(*world.job("urgent", world.images_in(30), "--deadline", "15s"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert world.hosts("urgent").keys() == {"thrifty-1", "hungry-2"}
    assert un0_json("verify", "urgent", "--store", world.store.config.uri)["ok"] is True


def test_a_node_that_joins_gets_work_and_one_that_dies_takes_nothing_along(world: World) -> None:
    """A replica is killed too: its node's meter lives on, and writes down what it wasted."""
    count = world.images_in(150)  # far more than the first two nodes assignment at a time
    job = world.job("joined", count, "--deadline", "10s", "--shard-images", "4096")
    with running(*job) as command:
        command.until(lambda: world.committed("joined") > 0)
        with standing_still(world):
            node = world.fleet.add(THRIFTY)
            command.until(lambda: world.replica_states().get("thrifty-3") == "awake")
        command.until(lambda: "thrifty-3" in world.hosts("joined"))
        command.until(lambda: bool(world.fleet.processes(f"Replica{AT_WORK}", "thrifty-1")))
        (replica,) = world.fleet.processes("Replica", "thrifty-1")
        until_in_the_middle(command, replica, lambda: world.hosts("joined")["thrifty-1"])
        replica.kill()
        world.fleet.remove(node)
        result = result_of(command)
    assert result["state"] == "completed"
    assert result["retries"] >= 1
    world.assert_whole("joined")
    write_logs(world)
    assert closure_error_mj(world.store, energy_files(world.store)) == 0
    rows = energy_dataset(world.store).to_table().to_pylist()
    wasted = [row for row in rows if row["bucket"] == "wasted"]
    assert {row["job_id"] for row in wasted} == {"joined"}
    assert sum(row["energy_mj"] for row in wasted) > 0


def until_in_the_middle(
    command: Running, replica: psutil.Process, committed: Callable[[], int]
) -> None:
    """Wait until the replica has worked for longer than between two looks of its meter, with
    nothing to show for it yet."""
    since_s, images = 0.0, -1

    def worked() -> bool:
        nonlocal since_s, images
        used_s = replica.cpu_times().user
        if committed() != images:
            since_s, images = used_s, committed()
        return used_s - since_s > 1.5

    command.until(worked)


def write_logs(world: World) -> None:
    """Have the meters write all they know, once the fleet has gone to rest."""

    def parked() -> bool:
        view = fleet_view(world.fleet.address, world.store.config)
        return view is not None and all(seat.state == "parked" for seat in view.seats)

    wait_for(parked)
    ray.init(address=world.fleet.address, log_to_driver=False)
    try:
        for found in ray.util.list_named_actors(all_namespaces=True):
            if found["name"].startswith("node-meter"):
                meter = ray.get_actor(found["name"], namespace=found["namespace"])
                assert ray.get(meter.leave.remote("nobody"))
    finally:
        ray.shutdown()


def test_a_job_outlives_its_driver_beside_another_and_resume_attaches_to_it(world: World) -> None:
    count = world.images_in(15)
    with contextlib.ExitStack() as commands:
        left = commands.enter_context(running(*world.job("left", count)))
        beside = commands.enter_context(running(*world.job("beside", 2000)))
        left.until(lambda: world.committed("left") > 0)
        with standing_still(world):
            kill_driver(left)
            resumed = commands.enter_context(running("resume", "left", *world.here, "--json"))
            resumed.until(lambda: is_connected(resumed, world.fleet.address))
            time.sleep(ASK_S)
        # a snapshot reaches it only through the coordinator that runs the job
        assert result_of(resumed)["state"] == "completed"
        assert result_of(beside)["state"] == "completed"
    assert newest(world.store, "left") == 1  # nobody had to take it over
    world.assert_whole("left")
    world.assert_whole("beside")


def test_a_job_whose_driver_is_gone_runs_to_its_end(world: World) -> None:
    with running(*world.job("alone", world.images_in(5))) as command:
        command.until(lambda: world.committed("alone") > 0)
        kill_driver(command)
    wait_for(lambda: world.state("alone") == "completed")
    world.assert_whole("alone")


def test_a_coordinator_that_dies_is_told_of_and_resume_starts_another(world: World) -> None:
    with running(*world.job("orphan", world.images_in(12))) as command:
        command.until(lambda: world.committed("orphan") > 0)
        (coordinator,) = world.fleet.processes("Coordinator")
        coordinator.kill()
        assert command.wait() == 1
        assert "the coordinator was lost" in command.stderr
        assert "un0 resume" in command.stderr
    resumed = un0_json("resume", "orphan", *world.here)
    assert resumed["state"] == "completed"
    assert newest(world.store, "orphan") == 2
    assert not psutil.pid_exists(coordinator.pid)
    world.assert_whole("orphan")


def test_a_closed_terminal_leaves_a_job_to_the_cluster_and_sigterm_stops_it(world: World) -> None:
    with running(*world.job("hung-up", world.images_in(600))) as left:
        left.until(lambda: world.committed("hung-up") > 0)
        left.process.send_signal(signal.SIGHUP)
        assert left.wait() == 129
        assert "Traceback" not in left.stderr
    seen = world.committed("hung-up")
    with running("resume", "hung-up", *world.here, "--json") as resumed:
        resumed.until(lambda: world.committed("hung-up") > seen)
        resumed.until(lambda: is_connected(resumed, world.fleet.address))
        resumed.process.send_signal(signal.SIGTERM)
        assert resumed.wait() == 143
        assert "Traceback" not in resumed.stderr
        assert json.loads(resumed.stdout)["state"] == "stopped"
    assert newest(world.store, "hung-up") == 1  # nobody had to take it over


@pytest.mark.slow
def test_a_running_fleet_keeps_a_cap_and_drains_a_node(world: World) -> None:
    """The last test: a drained node stays drained."""
    where = (world.fleet.address, world.store.config)

    def seats() -> dict[str, SlotView]:
        view = fleet_view(*where)
        return {} if view is None else {seat.host_name: seat for seat in view.seats}

    with running(*world.job("steered", world.images_in(600))) as command:
        command.until(lambda: world.committed("steered") > 0)
        assert un0_json("fleet", "cap", "1W", *world.here) == {"cap_w": 1.0}
        command.until(lambda: seats()["thrifty-1"].state == "parked")  # which needs more
        view = fleet_view(*where)
        assert view is not None
        assert view.cap_w == 1.0
        cap_fleet(*where, None)
        command.until(lambda: seats()["thrifty-1"].state == "awake")
        with pytest.raises(UserError, match="did you mean 'hungry-2'"):
            drain_node(*where, "hungry2", None)
        un0_json("fleet", "drain", "hungry-2", "--within", "1m", *world.here)
        command.until(lambda: seats()["hungry-2"].draining)
        assert not seats()["thrifty-1"].draining
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 143
    elsewhere = open_store(f"{world.store.config.uri}-2", probe=False).config
    with pytest.raises(UserError, match="no coordinator is running there for the store"):
        cap_fleet(world.fleet.address, elsewhere, 1.0)
