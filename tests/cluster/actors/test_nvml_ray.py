"""An actor on a real Ray node meters its GPU by UUID, whatever CUDA_VISIBLE_DEVICES says."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.support.nvml_stub import Gpu, Mig, build_nvml_stub
from tests.support.stub_node import play

pytestmark = [pytest.mark.ray, pytest.mark.slow]
VISIBLE = ("3,0", "GPU-b", "MIG-x", "", "0")
GPUS = ("GPU-a", "GPU-b", "GPU-c", "GPU-d")
SPENT_MJ = (100_000, 200_000, 300_000, 400_000)  # each its own, beside a watt all the time


def on_a_ray_node() -> dict[str, Any]:
    """What actors read, by their CUDA_VISIBLE_DEVICES: runs in a process that sees the stub."""
    import ray

    from cluster.metering.select import choose_gpu
    from tests.support.nvml_stub import NvmlStub

    @ray.remote(num_cpus=0)
    class Actor:
        def open(self, uuid: str) -> tuple[str, str | None]:
            self._source = choose_gpu(uuid).source
            return self._source.provider, os.environ.get("CUDA_VISIBLE_DEVICES")

        def read(self) -> int | None:
            return self._source.read().energy_mj

    stub = NvmlStub.of_this_process()
    stub.add(*(Gpu(uuid, rate_mw=1_000) for uuid in GPUS))
    stub.add(Mig("MIG-x", "GPU-c", 3))
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    try:
        results: dict[str, Any] = {"node_gpus": ray.cluster_resources().get("GPU")}
        for visible in VISIBLE:
            environment = {"env_vars": {"CUDA_VISIBLE_DEVICES": visible}}
            actor = Actor.options(runtime_env=environment).remote()
            provider, seen = ray.get(actor.open.remote("GPU-c"))
            for spent_mj, uuid in zip(SPENT_MJ, GPUS, strict=True):
                stub.spend(uuid, spent_mj)
            results[visible] = {
                "provider": provider,
                "seen": seen,
                "energy_mj": ray.get(actor.read.remote()),
            }
            ray.kill(actor)
        assigned = Actor.options(num_gpus=1).remote()  # Ray sets the variable by itself
        results["assigned"] = ray.get(assigned.open.remote("GPU-c"))
        return results
    finally:
        ray.shutdown()


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    report: dict[str, Any] = play(__file__, build_nvml_stub(tmp_path_factory.mktemp("nvml")))
    return report


def test_ray_finds_the_stub_s_gpus_too(results: dict[str, Any]) -> None:
    assert results["node_gpus"] == len(GPUS)


@pytest.mark.parametrize("visible", VISIBLE)
def test_the_variable_changes_nothing(results: dict[str, Any], visible: str) -> None:
    report = results[visible]
    assert (report["provider"], report["seen"]) == ("nvml-counter", visible)
    assert 300_000 <= report["energy_mj"] < 390_000  # GPU-c's


def test_a_gpu_that_ray_assigns_changes_nothing_either(results: dict[str, Any]) -> None:
    provider, seen = results["assigned"]
    assert provider == "nvml-counter"
    assert seen in {"0", "1", "2", "3"}


if __name__ == "__main__":
    print(json.dumps(on_a_ray_node()))
