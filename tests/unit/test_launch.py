"""How many replicas of which size a cluster has room for."""

from __future__ import annotations

import pytest

from cluster.actors.launch import fit
from cluster.actors.options import ReplicaOptions, RunOptions
from cluster.errors import UserError


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
