"""The CPU engine's own parts: its products, sines and convolutions, and what it remembers."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn import functional as F

from tests.support.effort import examples
from un0 import Sampler
from un0.engine import patches, pictures, tuning
from un0.engine.cpu import CpuEngine, fits
from un0.engine.product import Floats, Kind, multiply, pack, sin_cos
from un0.engine.team import Part, meet, share, team_of
from un0.engine.vectors import PANEL
from un0.noise import initial_phases
from un0.testing import random_model

ALONE = team_of(1)[0]
KINDS = [kind for kind in ("fp32", "bf16", "int8") if fits(kind)]


@settings(max_examples=examples(50), deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.integers(1, 40),
        elements=st.floats(-(2.0**30), 2.0**30, width=32, allow_nan=False),
    )
)
def test_sines_and_cosines_of_any_phase(x: Floats) -> None:
    sin, cos = np.empty_like(x), np.empty_like(x)
    sin_cos(x, sin, cos)
    np.testing.assert_allclose(sin, np.sin(x.astype(float)), rtol=0, atol=1.2e-7)
    np.testing.assert_allclose(cos, np.cos(x.astype(float)), rtol=0, atol=1.2e-7)


def product(kind: Kind, a: np.ndarray, w: Floats, block: int | None = None) -> np.ndarray:
    """a @ w as the engine does it, (rows, columns of w)."""
    packed = pack(w, kind, block)
    blocks, panels, words, _, numbers = packed.shape
    dtypes = {"fp32": np.float32, "bf16": np.uint16, "int8": np.uint8}
    filled = np.zeros((len(a), blocks * words * numbers), dtype=dtypes[kind])
    filled[:, : a.shape[1]] = a
    out = np.empty((len(a), panels * PANEL), dtype=np.float32)
    for b in range(blocks):
        for p in range(panels):
            multiply(
                numbers,
                filled.ctypes.data + 4 * words * b,
                filled.strides[0],
                packed[b, p].ctypes.data,
                out.ctypes.data + 4 * PANEL * p,
                out.strides[0],
                words,
                1 if b == 0 else 0,
                len(a),
            )
    return out.view(np.int32)[:, : w.shape[1]] if kind == "int8" else out[:, : w.shape[1]]


@pytest.mark.parametrize("rows", [2, 6, 8, 26])
@pytest.mark.parametrize(("k", "n"), [(64, 32), (88, 40), (7, 100)])
def test_products_of_floats(rows: int, k: int, n: int) -> None:
    rng = np.random.default_rng(rows)
    a, w = rng.normal(size=(rows, k)).astype(np.float32), rng.normal(size=(k, n))
    exact = a.astype(float) @ w.astype(np.float32).astype(float)
    np.testing.assert_allclose(product("fp32", a, w.astype(np.float32)), exact, atol=1e-4)


@pytest.mark.skipif("int8" not in KINDS, reason="this processor has no 8-bit products")
@pytest.mark.parametrize("rows", [2, 10])
def test_products_of_whole_numbers_are_exact(rows: int) -> None:
    rng = np.random.default_rng(rows)
    a = rng.integers(0, 256, (rows, 84)).astype(np.uint8)
    w = rng.integers(-127, 128, (84, 40)).astype(np.float32)
    assert np.array_equal(product("int8", a, w, block=8), a.astype(int) @ w.astype(int))


def test_blocks_of_a_sum_change_no_bit() -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(8, 96)).astype(np.float32)
    w = rng.normal(size=(96, 64)).astype(np.float32)
    whole = product("fp32", a, w)
    assert np.array_equal(product("fp32", a, w, block=16), whole)
    assert np.array_equal(product("fp32", a[2:4], w), whole[2:4])


@pytest.mark.parametrize("enlarged", [True, False])
@pytest.mark.parametrize(("c_in", "c_out"), [(8, 32), (52, 40), (160, 64)])
def test_convolutions_are_those_of_pytorch(enlarged: bool, c_in: int, c_out: int) -> None:
    rng = torch.Generator().manual_seed(c_in)
    x = torch.randn(3, c_in, 8, 8, generator=rng)
    weight = torch.randn(c_out, c_in, 3, 3, generator=rng) / c_in**0.5
    bias = torch.randn(c_out, generator=rng)
    large = F.interpolate(x, scale_factor=2.0) if enlarged else x
    expected = F.leaky_relu(
        F.conv2d(large.double(), weight.double(), bias.double(), padding=1), 0.2
    )

    transform = patches.ENLARGED if enlarged else patches.PLAIN
    weights = patches.prepare_conv(weight.numpy(), transform, "fp32")
    padded = np.zeros((3, 10, 10, patches.whole_panels(c_in)), dtype=np.float32)
    padded[:, 1:-1, 1:-1, :c_in] = x.permute(0, 2, 3, 1).numpy()
    side = large.shape[2] + 2
    y = np.zeros((3, side, side, patches.whole_panels(c_out)), dtype=np.float32)
    addend = np.zeros(patches.whole_panels(c_out), dtype=np.float32)
    addend[:c_out] = bias.numpy()
    patches.convolve(ALONE, 3, padded, weights, addend, y)
    inner = y[:, 1:-1, 1:-1]
    np.testing.assert_allclose(inner[..., :c_out], expected.permute(0, 2, 3, 1), atol=2e-5)
    assert not inner[..., c_out:].any()  # spare channels stay zero, as do borders
    assert not y[:, 0].any()
    assert not y[:, :, -1].any()


def test_a_picture_is_the_last_convolution_of_a_map() -> None:
    rng = torch.Generator().manual_seed(0)
    x, weight = torch.randn(1, 32, 8, 8, generator=rng), torch.randn(3, 32, 3, 3, generator=rng) / 8
    bias = torch.tensor([0.1, -3.0, 9.0])
    expected = torch.tanh(F.conv2d(x.double(), weight.double(), bias.double(), padding=1))
    padded = np.zeros((10, 10, 32), dtype=np.float32)
    padded[1:-1, 1:-1] = x[0].permute(1, 2, 0).numpy()
    image = np.empty((8, 8, 3), dtype=np.float32)
    for top, bottom in ((0, 3), (3, 8)):
        rows = image[top:bottom]
        pictures.paint(padded, pictures.prepare_out(weight.numpy()), bias.numpy(), top, rows)
    np.testing.assert_allclose(image, expected[0].permute(1, 2, 0), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("config", "rows"),
    [
        ({"n": 208}, 1),  # the last panel is not full
        ({"n": 208, "solver": "rk4", "encoding": "sin", "relativization": "absolute"}, 3),
        ({"n": 1040, "n_cond": 8, "relativization": "mean_relative"}, 5),  # two blocks of K
        ({"n": 1040, "num_steps": 2}, 40),  # rows beyond the second cache
    ],
)
def test_a_team_makes_the_bytes_of_one_thread(
    kind: Kind, config: dict[str, Any], rows: int
) -> None:
    model = random_model(**config)
    c = model.config
    engine = CpuEngine(model, torch.device("cpu"), kind, tile=64)
    phases = initial_phases(3, range(rows), c.n + c.n_cond)
    class_ids = torch.arange(rows) % c.num_classes
    alone = engine(phases, class_ids).numpy()
    for members in (2, 3, 7):
        job = engine.share(phases, class_ids, members)
        with ThreadPoolExecutor(members) as threads:
            assert list(threads.map(job.work, range(members))) == [None] * members
        assert np.array_equal(job.levels, alone)


@given(st.integers(1, 40), st.integers(0, 1000))
def test_shares_are_all_of_it_once_and_even(members: int, whole: int) -> None:
    shares = [share(part, whole) for part in team_of(members)]
    assert shares[0][0] == 0
    assert shares[-1][1] == whole
    assert all(a[1] == b[0] for a, b in pairwise(shares))
    sizes = [end - begin for begin, end in shares]
    assert max(sizes) - min(sizes) <= 1


def test_after_a_meeting_everybody_sees_what_the_others_wrote() -> None:
    """More threads than cores, many times: without the meetings nearly all would fail."""
    team, rounds = team_of(5), 200
    board = np.zeros((2, len(team)), dtype=np.int64)

    def member(part: Part) -> bool:
        seen = True
        for k in range(1, rounds + 1):
            board[k % 2, part.member] = k
            meet(part)
            seen &= bool((board[k % 2] == k).all())
        return seen

    with ThreadPoolExecutor(len(team)) as threads:
        assert all(threads.map(member, team))


HASH = """
import hashlib
from un0 import Sampler
from un0.noise import initial_phases
from un0.testing import random_model
model = random_model(n=104, solver="rk4", num_steps=3, num_blocks=4)
sampler = Sampler(model, device="cpu", engine="cpu", tile=8)
print(hashlib.sha256(sampler.generate(3, 0, [1, 2, 3]).tobytes()).hexdigest())
"""


@pytest.mark.slow
def test_processors_with_shorter_vectors_make_the_same_bytes(tmp_path: Path) -> None:
    """Compiled for a processor of 2013 in one process, and for this one in another."""
    old = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+avx,+avx2,+fma,+sse4.2"}
    digests = {
        subprocess.run(
            [sys.executable, "-c", HASH],
            env={**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), **settings},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for settings in ({}, old)
    }
    assert len(digests) == 1


def test_a_measured_tile_is_remembered_and_changes_no_byte(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = random_model()
    first = Sampler(model, device="cpu", engine="cpu")
    untuned = first.generate(1, 0, range(10))
    monkeypatch.setattr(tuning, "measure_tile", lambda *_: 128)
    first.warm_up()
    assert first.tile == 128
    second = Sampler(model, device="cpu", engine="cpu")
    assert second.tile == 128
    assert np.array_equal(second.generate(1, 0, range(10)), untuned)
    assert Sampler(model, device="cpu", engine="cpu", tile=8).tile == 8  # who asks, gets
    (tmp_path / "un0" / "tiles.json").write_text("{ damaged")
    assert Sampler(model, device="cpu", engine="cpu").tile == 32


class Timed:
    """An engine that takes as long as the test says: seconds an image, by rows."""

    name, tile, any_rows = "timed", 32, True

    def __init__(self, each_s: dict[int, float]) -> None:
        self.each_s, self.tried = each_s, list[int]()

    def __call__(self, phases: torch.Tensor, class_ids: torch.Tensor) -> torch.Tensor:
        self.tried.append(len(class_ids))
        return phases


@pytest.mark.parametrize(
    ("each_s", "tile"),
    [
        ({16: 1e-3, 32: 0.999e-3, 64: 0.995e-3, 128: 1e-3}, 16),  # not worth waiting for
        ({16: 1e-3, 32: 1.1e-3, 64: 0.8e-3, 128: 0.795e-3}, 64),  # one worse is no end
        ({16: 0.03, 32: 0.02, 64: 0.01, 128: 0.005}, 32),  # 64 would take over a second
        ({16: 0.1, 32: 0.01, 64: 0.01, 128: 0.01}, 16),
    ],
)
def test_the_measured_tile_is_fast_and_answers_soon(
    monkeypatch: pytest.MonkeyPatch, each_s: dict[int, float], tile: int
) -> None:
    engine = Timed(each_s)
    monkeypatch.setattr(tuning, "_seconds", lambda e, p, c: len(e(p, c)) * engine.each_s[len(c)])
    with ThreadPoolExecutor(2) as pool:
        assert tuning.measure_tile(engine, random_model().config, pool, threads=2) == tile
    assert all(rows * each_s[rows] <= 1.6 for rows in engine.tried)


def test_a_measured_tile_is_a_candidate() -> None:
    sampler = Sampler(random_model(), device="cpu", engine="cpu", threads=2)
    tile = tuning.measure_tile(sampler._engine, sampler.config, sampler._pool, 2)
    assert tile in tuning.CANDIDATES
