"""How many replicas of which size a cluster has room for."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.actors.launch import fit, job_run
from cluster.actors.options import ModelWork, ReplicaOptions, RunOptions, RunRequest
from cluster.actors.room import check_machine
from cluster.errors import UserError
from cluster.scheduler.request import JobRequest
from cluster.storage.object_store import StoreConfig
from cluster.types import Workload
from un0.machine import Memory
from un0.paths import Cache


@pytest.mark.parametrize(
    ("nodes", "wanted", "replicas", "threads"),
    [
        ([{"CPU": 2.0}], None, 1, 2),
        ([{"CPU": 3.0}], 3, 3, 1),
        ([{"CPU": 2.0}, {"CPU": 2.0}], None, 2, 2),  # never one of four: no node has them
        ([{"CPU": 6.0}], None, 2, 3),
        ([{"CPU": 64.0}], None, 16, 4),
        ([{"CPU": 64.0}], 2, 2, 4),
        ([{"CPU": 1.0}, {"CPU": 8.0}], 2, 2, 4),
    ],
)
def test_cpu_replicas(
    nodes: list[dict[str, float]], wanted: int | None, replicas: int, threads: int
) -> None:
    assert fit(RunOptions(wanted), nodes) == (replicas, ReplicaOptions("cpu", threads))


def test_one_replica_per_gpu() -> None:
    nodes = [{"CPU": 32.0, "GPU": 4.0}, {"CPU": 8.0, "GPU": 1.0}, {"CPU": 8.0}]
    assert fit(RunOptions(None), nodes) == (5, ReplicaOptions("cuda", 1))


@pytest.mark.parametrize(
    ("nodes", "wanted"), [([{"CPU": 2.0}], 3), ([{"CPU": 8.0, "GPU": 1.0}], 2), ([{}], None)]
)
def test_what_does_not_fit_is_refused_at_once(
    nodes: list[dict[str, float]], wanted: int | None
) -> None:
    with pytest.raises(UserError, match="do not fit"):
        fit(RunOptions(wanted), nodes)


def test_replicas_that_nobody_asked_for_fit_in_memory() -> None:
    nodes = [{"CPU": 64.0}]
    assert fit(RunOptions(None), nodes, 3) == (3, ReplicaOptions("cpu", 4))
    assert fit(RunOptions(8), nodes, 3) == (8, ReplicaOptions("cpu", 4))
    assert fit(RunOptions(None), [{"CPU": 8.0, "GPU": 2.0}], 1) == (2, ReplicaOptions("cuda", 1))


def test_a_run_without_memory_never_gets_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_ray(*_: object, **__: object) -> None:
        raise AssertionError("Ray was started")

    small = Memory(10**8, 6 * 10**8, "that its cgroup allows")
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("cluster.actors.room.memory_here", lambda: small)
    monkeypatch.setattr("ray.init", no_ray)
    work = Workload.model_construct(job_id="j")
    plan = RunRequest(work, JobRequest("j", "m", 1, 1), ModelWork(1.0, 32, 32))
    with (
        pytest.raises(UserError, match="needs about"),
        job_run(plan, StoreConfig("file:///nowhere"), RunOptions()),
    ):
        pass


def test_that_no_cache_can_be_written_is_said_where_the_user_sees_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = Cache(Path("/nowhere"), False, "/nowhere cannot be written to")
    monkeypatch.setattr("cluster.actors.room.cache_here", lambda: nowhere)
    monkeypatch.setattr("cluster.actors.room.check_memory", lambda: None)
    check_machine()
    (record,) = caplog.records
    assert "/nowhere cannot be written to; set XDG_CACHE_HOME" in record.getMessage()
