"""The GPU engine on a GPU: parity, the promise of the same bytes, and its fallbacks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.support.gpu import needs
from un0 import Sampler, Un0Model, load_model
from un0.engine import Precision, build_engine
from un0.engine.base import FP8_PRECISIONS
from un0.engine.cuda import CudaEngine
from un0.engine.fused import fits
from un0.noise import MAX_INDEX, MAX_SEED, initial_phases, phases_torch
from un0.noise_rows import RowNoise
from un0.testing import random_model

Images = NDArray[np.uint8]
GPU = torch.device("cuda")
FIXTURES = Path(__file__).parents[1] / "un0" / "parity" / "fixtures"
COUNT = 257
CLASSES = np.arange(COUNT) * 7 % 10
# Mean and most levels off the reference in float64, over the worst fixture.
BARS: dict[Precision, tuple[float, int]] = {
    "fp32": (0.005, 1), "fp16": (0.3, 6), "bf16": (1.0, 24), "fp8": (5.0, 90),
    "fp8-full": (10.0, 240),
}  # fmt: skip


def engine(
    model: Un0Model, precision: Precision = "fp32", tile: int = 16, **more: Any
) -> CudaEngine:
    needs(precision)
    return CudaEngine(model, GPU, precision, tile, **more)


@pytest.fixture(scope="module")
def model() -> Un0Model:
    return random_model(n=512, n_cond=8, relativization="mean_relative")


@pytest.fixture(scope="module")
def sampler(model: Un0Model) -> Sampler:
    return Sampler(model, device="cuda", tile=64)


@pytest.fixture(scope="module")
def images(sampler: Sampler) -> Images:
    return sampler.generate(11, 1000, CLASSES)


@pytest.mark.parametrize("precision", BARS)
@pytest.mark.parametrize("name", sorted(path.stem for path in FIXTURES.glob("*.pt")))
def test_parity_with_the_public_reference(name: str, precision: Precision) -> None:
    needs(precision)
    arrays = np.load(FIXTURES / f"{name}.npz")
    model = load_model(FIXTURES / f"{name}.pt")
    if precision in FP8_PRECISIONS and not fits(model.config):
        pytest.skip("fp8 is for models of the released kind")
    built = build_engine(model, "cuda", precision, tile=8)
    phases, ids = torch.from_numpy(arrays["initial_phases"]), torch.from_numpy(arrays["class_ids"])
    made = built(phases.cuda(), ids.cuda()).cpu().numpy().astype(int)
    off = np.abs(made - np.rint((arrays["images"] + 1) * 127.5).transpose(0, 2, 3, 1))
    mean, most = BARS[precision]
    assert off.mean() <= mean
    assert off.max() <= most


def test_the_sampler_takes_this_engine(sampler: Sampler) -> None:
    assert sampler.engine_name == "cuda"


@pytest.mark.parametrize("batch", [1, 3, 64, 257])
def test_batch_size_changes_no_byte(sampler: Sampler, images: Images, batch: int) -> None:
    count = min(COUNT, 6 * batch)
    parts = [
        sampler.generate(11, 1000 + k, CLASSES[k : min(k + batch, count)])
        for k in range(0, count, batch)
    ]
    assert np.array_equal(np.concatenate(parts), images[:count])


@pytest.mark.parametrize("precision", BARS)
def test_neighbours_and_callers_change_no_byte(model: Un0Model, precision: Precision) -> None:
    needs(precision)
    sampler = Sampler(model, device="cuda", precision=precision, tile=64)
    whole = sampler.generate(3, 0, CLASSES)
    others = (CLASSES + 1) % 10
    others[100] = CLASSES[100]
    assert np.array_equal(sampler.generate(3, 0, others)[100], whole[100])
    with ThreadPoolExecutor(4) as callers:
        parts = callers.map(
            lambda k: sampler.generate(3, k, CLASSES[k : k + 60]), range(0, 240, 60)
        )
        assert np.array_equal(np.concatenate(list(parts)), whole[:240])


def test_the_cpu_draws_the_same_pictures(model: Un0Model, images: Images) -> None:
    """At most one level on at least 99.9 % of values."""
    on_cpu = Sampler(model, device="cpu").generate(11, 1000, CLASSES)
    off = np.abs(on_cpu.astype(int) - images)
    assert (off <= 1).mean() >= 0.999


def test_rows_with_seeds_of_their_own_are_as_others(model: Un0Model, images: Images) -> None:
    """They take the way without a graph, and are the same to the bit in the same rows."""
    sampler = Sampler(model, device="cuda")
    count = len(CLASSES)
    noise = RowNoise(np.full(count, 11, np.uint64), np.arange(1000, 1000 + count))
    tiles = sampler.generate_tiles(3, 1000, CLASSES, noise)
    assert np.array_equal(np.concatenate([part for _, part in tiles]), images)


@pytest.mark.parametrize("seed", [0, 2**63, MAX_SEED])
def test_philox_is_the_samplers_bit_for_bit(seed: int) -> None:
    from un0.engine import torch_ops, triton_ops

    indices = torch.tensor([0, 1, 2**31, 2**32 - 1, 2**32, MAX_INDEX])
    word = torch.from_numpy(np.array([seed], dtype=np.uint64).view(np.int64))
    for n, m in ((16, 1), (1040, 8), (16384, 1)):
        expected = initial_phases(seed, indices.tolist(), n + m)
        assert torch.equal(phases_torch(seed, indices.cuda(), n + m).cpu(), expected)
        for ops in (torch_ops, triton_ops):
            theta, phi = ops.initial_phases(word.cuda(), indices.cuda(), n, m)
            assert torch.equal(theta.cpu(), torch_ops.pixel_order(expected[:, :n]))
            assert torch.equal(phi.cpu(), expected[:, n:])


@pytest.mark.parametrize("precision", BARS)
def test_graph_and_plain_launches_give_the_same_bytes(
    model: Un0Model, precision: Precision
) -> None:
    recorded, plain = engine(model, precision), engine(model, precision, graphs=False)
    expected = plain.render(5, 32, CLASSES[:16])
    for _ in range(3):
        assert np.array_equal(recorded.render(5, 32, CLASSES[:16]), expected)
    assert not np.array_equal(recorded.render(6, 32, CLASSES[:16]), expected)
    phases = initial_phases(5, range(32, 48), 512 + 8, "cuda")
    given = plain(phases, torch.from_numpy(CLASSES[:16]).cuda())
    assert np.array_equal(given.cpu().numpy(), expected)


def test_without_triton_the_pictures_stay(model: Un0Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from un0.engine import cuda, torch_ops

    expected = engine(model).render(5, 0, CLASSES[:16]).astype(int)
    monkeypatch.setattr(cuda, "best_ops", lambda _device: torch_ops)
    off = np.abs(engine(model).render(5, 0, CLASSES[:16]) - expected)
    assert off.max() <= 1


@pytest.mark.parametrize(("precision", "most"), [("fp32", 1), ("bf16", 12)])
def test_both_decoders_draw_the_same(model: Un0Model, precision: Precision, most: int) -> None:
    ours, library = (
        engine(model, precision, decoding=decoding).render(5, 0, CLASSES[:16]).astype(int)
        for decoding in ("fused", "library")
    )
    assert np.abs(ours - library).max() <= most
