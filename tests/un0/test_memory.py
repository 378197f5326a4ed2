"""The memory model against what the GPU engine's mathematics allocates, and what follows."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import un0.memory
from tests.support.effort import costly
from tests.support.live_bytes import LiveBytes
from un0 import ModelConfig, Sampler, Un0Model
from un0.catalog import RELEASED
from un0.engine.base import Precision
from un0.engine.fused import FusedModel
from un0.memory import (
    WORKSPACE_BYTES,
    cpu_bytes,
    image_bytes,
    loading_bytes,
    plan,
    weights_bytes,
)
from un0.testing import random_model

triton_ops = pytest.importorskip("un0.engine.triton_ops")

CPU, META, CUDA = torch.device("cpu"), torch.device("meta"), torch.device("cuda")
GB = 10**9
CONFIGS: list[dict[str, Any]] = [
    {},
    {"n": 1024, "n_cond": 8, "num_steps": 2},
    {"n": 256, "num_blocks": 4, "num_classes": 50, "num_steps": 2},
    {"n": 2048, "num_blocks": 1, "n_cond": 1, "num_steps": 2},  # the phases are most of it
]


def on_meta(config: ModelConfig) -> Un0Model:
    with torch.device("meta"):
        return Un0Model(config).requires_grad_(False)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16", "fp8", "fp8-full"])
@pytest.mark.parametrize("name", RELEASED)
def test_weights_are_counted_to_the_byte(name: str, precision: Precision) -> None:
    config = RELEASED[name].config
    fused = FusedModel(on_meta(config), META, precision, decoding="fused")
    held = sum(t.numel() * t.element_size() for t in fused.tensors) - 8  # two scales
    assert weights_bytes(config, precision) == held


class NoKernels:
    """In the place of Triton's kernels, which allocate nothing; its interpreter keeps copies."""

    def __getattr__(self, _name: str) -> NoKernels:
        return self

    def __getitem__(self, _grid: object) -> NoKernels:
        return self

    def __call__(self, *_args: object, **_options: object) -> None: ...


def pull(fused: FusedModel, swings: Tensor) -> Tensor:
    """In the place of the product with K, which in fp32 makes copies where there is no GPU."""
    return swings.new_empty(len(swings), 2, fused.config.n, dtype=fused.dtype)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8", "fp8-full"])
@pytest.mark.parametrize("changes", costly(*CONFIGS[::2], *CONFIGS[1::2]))
def test_activations_are_what_an_image_adds(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], precision: Precision
) -> None:
    model = random_model(**changes)
    config = model.config
    monkeypatch.setattr(triton_ops, "kernels", NoKernels())
    monkeypatch.setattr(triton_ops, "triton_conv", NoKernels())
    fused = FusedModel(model, CPU, precision, triton_ops)
    monkeypatch.setattr(FusedModel, "_pull", pull)

    def peaks(rows: int) -> int:
        """While integrating and while decoding: the one leaves pieces too small for the other."""
        request = torch.zeros(2 + rows, dtype=torch.long)
        total = 0
        with torch.inference_mode():
            with LiveBytes() as live:
                theta = fused.settle(request[:1], request[2:], request[2:])
            total += live.peak
            with LiveBytes() as live:
                fused.decode(theta)
        return total + live.peak

    each = (peaks(21) - peaks(5)) / 16
    modelled = image_bytes(config, precision)
    assert each <= modelled <= 1.1 * each + 6 * config.image_size**2  # and the copies to the host


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp8", "fp8-full"])
def test_loading_never_holds_a_second_coupling_matrix(
    monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    """Beside what is kept, at most a few blocks of K or decoders, whatever the tile will be."""
    monkeypatch.setattr(FusedModel, "_pull", pull)
    config = RELEASED["imagenet64/n16384"].config
    model = on_meta(config)
    with LiveBytes() as live:
        fused = FusedModel(model, META, precision, decoding="fused")
    kept = sum(t.numel() * t.element_size() for t in fused.tensors)
    assert live.peak <= kept + loading_bytes(config)
    found = plan(config, CUDA, precision, free_bytes=0)
    assert found.tile == 1
    assert live.peak < found.needed_bytes < kept + config.n**2 * 4


def test_the_largest_model_fits_in_four_gigabytes() -> None:
    """With half a gigabyte for what CUDA itself takes, and the tile every GPU uses."""
    found = plan(RELEASED["imagenet64/n16384"].config, CUDA, "bf16", free_bytes=4 * GB - GB // 2)
    assert found.fits
    assert found.usual_bytes
    assert found.needed_bytes < 2 * GB


def test_a_tile_is_halved_until_it_fits() -> None:
    config = RELEASED["cifar10/n4096"].config
    usual = plan(config, CUDA, "bf16", free_bytes=80 * GB)
    assert usual.tile == usual.default_tile
    for halvings in (1, 3):
        tile = usual.default_tile >> halvings
        room = usual.weights_bytes + usual.image_bytes * tile + WORKSPACE_BYTES
        small = plan(config, CUDA, "bf16", free_bytes=room)
        assert (small.tile, small.fits, small.usual_bytes) == (tile, True, False)
        assert plan(config, CUDA, "bf16", free_bytes=room - 1).tile == tile // 2
    nothing = plan(config, CUDA, "bf16", free_bytes=0)
    assert (nothing.tile, nothing.fits) == (1, False)


def test_a_cpu_keeps_its_tile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no tile was measured here yet
    sampler = Sampler(random_model(), device="cpu")
    found = sampler.plan()
    assert found.tile == found.default_tile == sampler.tile
    assert found.usual_bytes
    assert sampler.plan("cpu") == found


class Narrow:
    """An engine whose memory holds so many images and no more."""

    name, any_rows = "narrow", False

    def __init__(self, holds: int, tile: int) -> None:
        self.holds, self.tile = holds, tile
        self.forgotten = 0
        self.rows: list[int] = []

    def __call__(self, _phases: torch.Tensor, _class_ids: torch.Tensor) -> torch.Tensor:
        raise AssertionError("a renderer draws its own phases")

    def render(self, _seed: int, first: int, class_ids: NDArray[np.int64]) -> NDArray[np.uint8]:
        self.rows.append(len(class_ids))
        if len(class_ids) > self.holds:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate all of it.\nMore")
        images = np.zeros((len(class_ids), 32, 32, 3), dtype=np.uint8)
        images[:, 0, 0, 0] = (first + np.arange(len(class_ids))) % 251
        images[:, 0, 0, 1] = class_ids
        return images

    def forget(self) -> None:
        self.forgotten += 1


@pytest.fixture(autouse=True)
def _forgetful() -> Iterator[None]:
    yield
    un0.memory._smaller.clear()


def narrow_sampler(holds: int, **changes: Any) -> tuple[Sampler, Narrow]:
    sampler = Sampler(random_model(**changes), device="cpu", tile=32, threads=2)
    sampler._engine = narrow = Narrow(holds, 32)
    return sampler, narrow


def test_out_of_memory_halves_and_remembers(caplog: pytest.LogCaptureFixture) -> None:
    sampler, narrow = narrow_sampler(holds=9)
    class_ids = np.arange(150) % 10
    with caplog.at_level(logging.WARNING):
        images = sampler.generate(0, 1000, class_ids)
    assert images[:, 0, 0, 0].tolist() == [(1000 + k) % 251 for k in range(150)]
    assert images[:, 0, 0, 1].tolist() == class_ids.tolist()
    assert sampler.tile == 8
    assert narrow.forgotten == 2
    assert "may change an image's last bits" in caplog.text
    narrow.rows.clear()
    sampler.generate(0, 0, class_ids)
    assert set(narrow.rows) == {8}
    assert plan(sampler.config, CPU, "fp32", free_bytes=80 * GB).tile == 8  # the next one knows


def test_a_single_image_that_does_not_fit_is_an_error() -> None:
    sampler, _ = narrow_sampler(holds=0)
    with pytest.raises(torch.OutOfMemoryError):
        sampler.generate(0, 0, [0, 1])


def test_what_is_remembered_is_of_one_model_and_precision() -> None:
    sampler, _ = narrow_sampler(holds=4)
    sampler.generate(0, 0, [0] * 40)
    other = dataclasses.replace(sampler.config, n=128)
    assert plan(other, CPU, "fp32", free_bytes=80 * GB).usual_bytes
    assert plan(sampler.config, CPU, "bf16", free_bytes=80 * GB).usual_bytes


def test_a_cpu_replica_takes_a_little_more_than_its_parameters() -> None:
    """Measured (resident, unshared) with cifar10/n4096 at 78 MB of parameters and imagenet64/n6656
    at 229 MB, on one and two threads: 98, 103, 269 and 316 MB."""
    for name, threads, megabytes in [
        ("cifar10/n4096", 1, 98), ("cifar10/n4096", 2, 103),
        ("imagenet64/n6656", 1, 269), ("imagenet64/n6656", 2, 316),
    ]:  # fmt: skip
        counted = cpu_bytes(RELEASED[name].config, threads)
        assert megabytes <= counted / 1e6 <= 1.5 * megabytes
