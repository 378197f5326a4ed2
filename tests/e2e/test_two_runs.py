"""Two jobs at once on one Ray node: one meter, one log, and nothing is counted twice."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import ray

from cluster.actors.node_meter import meter_on
from cluster.ledger.reader import closure_error_mj, energy_dataset, energy_files
from cluster.storage.commit import read_commits
from cluster.storage.layout import parse_energy_key
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from tests.support.cli import running, un0_json

WAIT_S = 120.0


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """A Ray node on which two replicas of four threads fit."""
    ray.init(address="local", num_cpus=8, include_dashboard=False, log_to_driver=False)
    yield str(ray.get_runtime_context().gcs_address)
    ray.shutdown()


@pytest.fixture(scope="module")
def logged(address: str, tmp_path_factory: pytest.TempPathFactory) -> ObjectStore:
    """The store after a short job ran beside a long one, which was then killed, and another."""
    store = open_store(str(tmp_path_factory.mktemp("store")))

    def job(job_id: str, count: int) -> tuple[str, ...]:
        return (
            "generate", "--job-id", job_id, "--count", str(count), "--replicas", "1",
            "--shard-images", "128", "--store", store.config.uri, "--address", address,
        )  # fmt: skip

    with running(*job("long", 10**6)) as long:
        long.until(lambda: bool(read_commits(store, "long")))
        assert un0_json(*job("short", 300))["state"] == "completed"
        assert long.process.poll() is None
    wait_for(lambda: seats() == [])  # nothing reported it to the meter
    assert un0_json(*job("last", 300))["state"] == "completed"
    return store


def wait_for(condition: Callable[[], bool]) -> None:
    until_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.1)


def meters() -> list[Any]:
    """The meters on the node."""
    found = ray.util.list_named_actors(all_namespaces=True)
    return [ray.get_actor(name["name"], namespace=name["namespace"]) for name in found]


def seats() -> list[str]:
    """Who sits at the node's one meter."""
    (actor,) = meters()
    found: list[str] = ray.get(actor.__ray_call__.remote(lambda meter: list(meter._meter._seats)))
    return found


def rows(store: ObjectStore) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = energy_dataset(store).to_table().to_pylist()
    return table


def test_one_writer_wrote_one_log_that_adds_up(logged: ObjectStore) -> None:
    files = energy_files(logged)
    names = [parse_energy_key(file.key) for file in files]
    assert len({name.writer for name in names if name}) == 1
    assert closure_error_mj(logged, files) == 0


def test_no_time_of_a_device_is_counted_twice(logged: ObjectStore) -> None:
    spans = defaultdict(set)
    for row in rows(logged):
        spans[row["hw_id"]].add((row["ts_start"], row["ts_end"]))
    for of_device in spans.values():
        in_order = sorted(of_device)
        for (_, end), (start, _) in pairwise(in_order):
            assert end == start  # no overlap, and no hole


def test_each_job_has_its_images_and_the_killed_one_its_waste(logged: ObjectStore) -> None:
    made: defaultdict[str, int] = defaultdict(int)
    for row in rows(logged):
        if row["bucket"] == "job":
            made[row["job_id"]] += row["images"] or 0
    assert (made["short"], made["last"]) == (300, 300)
    assert made["long"] > 0
    assert {row["job_id"] for row in rows(logged) if row["bucket"] == "wasted"} == {"long"}


def test_each_job_s_energy_is_what_its_commits_say(logged: ObjectStore) -> None:
    for job_id in ("short", "last"):
        commits = read_commits(logged, job_id).values()
        logged_mj = sum(r["energy_mj"] for r in rows(logged) if r["job_id"] == job_id)
        assert logged_mj == sum(commit.energy.energy_mj or 0 for commit in commits)


def test_a_meter_that_nobody_uses_ends_in_good_order_and_another_can_come(
    address: str, tmp_path: Path
) -> None:
    assert address
    store, before = open_store(str(tmp_path)), len(meters())
    node_id = ray.get_runtime_context().get_node_id()
    for epochs in (1, 2):
        asyncio.run(meter_on(node_id, store.config, "test", "run", alone_s=1.0))
        wait_for(lambda: len(meters()) == before)
        found = rows(store)
        assert {row["bucket"] for row in found} == {"idle"}  # no gap: the first had closed its log
        assert len({row["meter_epoch"] for row in found}) == epochs
