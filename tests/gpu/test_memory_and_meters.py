"""What only a GPU can tell: memory at its peak, running out of it, and joules by the counter."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from cluster.clock import monotonic_ns
from cluster.metering.node import gpu_source
from cluster.metering.tenant import tenant_here
from tests.support.gpu import needs
from un0 import Sampler
from un0.catalog import RELEASED
from un0.engine import Precision
from un0.testing import random_model

GB = 10**9


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8-full"])
@pytest.mark.parametrize("name", ["cifar10/n4096", "imagenet64/n6656"])
def test_the_memory_model_holds(name: str, precision: Precision) -> None:
    needs(precision)
    model = random_model(**dataclasses.asdict(RELEASED[name].config))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_reserved()
    sampler = Sampler(model, device="cuda", precision=precision)
    found = sampler.plan()
    sampler.warm_up()
    used = torch.cuda.max_memory_reserved() - before
    assert found.tile == sampler.tile
    assert used <= found.needed_bytes


def test_the_largest_model_runs_in_four_gigabytes() -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 4 * GB / total))
    try:
        model = random_model(**dataclasses.asdict(RELEASED["imagenet64/n16384"].config))
        sampler = Sampler(model, device="cuda", precision="bf16")
        images = sampler.generate(0, 0, np.arange(300))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert images.shape == (300, 64, 64, 3)
    assert sampler.plan().usual_bytes


def test_out_of_memory_halves_the_tile() -> None:
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    sampler = Sampler(random_model(n=4096), device="cuda", precision="bf16", tile=4096)
    torch.cuda.set_per_process_memory_fraction(min(1.0, GB / total))
    try:
        images = sampler.generate(0, 0, np.arange(100) % 10)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert sampler.tile < 4096
    assert images.std() > 20


def test_joules_come_from_the_counter_and_grow_with_work() -> None:
    source = gpu_source(tenant_here("test", "cuda"))
    sampler = Sampler(random_model(n=1024), device="cuda", precision="bf16")
    sampler.warm_up()
    begin = source.read()
    while monotonic_ns() - begin.at_ns < 2_500_000_000:
        sampler.generate(0, 0, np.zeros(8 * sampler.tile, dtype=np.int64))
    end = source.read()
    source.close()
    assert end.quality == "measured_counter"
    assert begin.energy_mj is not None
    assert end.energy_mj is not None
    power_w = (end.energy_mj - begin.energy_mj) / 1e3 / ((end.at_ns - begin.at_ns) / 1e9)
    assert 10 < power_w < 1500
