"""Philox4x32-10 against its authors' vectors, and phases as the sampler sees them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from un0.errors import InputError
from un0.noise import MAX_INDEX, MAX_SEED, initial_phases, phases_torch, philox_torch

# Known answers published with Random123 (kat_vectors, philox4x32 10): counter, key, output.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000",
     "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff",
     "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0",
     "d16cfe09 94fdcceb 5001e420 24126ea1"),
]  # fmt: skip


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_known_answers(counter: str, key: str, output: str) -> None:
    k0, k1 = words(key)
    out = philox_torch(tuple(torch.tensor(word) for word in words(counter)), (k0, k1))
    assert [int(word) for word in out] == words(output)


def test_a_phase_is_its_word_on_the_circle() -> None:
    """Image 0 of seed 0 begins with the first known answer, mapped to [-pi, pi)."""
    first = [((word >> 8) - 2**23) * math.pi / 2**23 for word in words(KNOWN_ANSWERS[0][2])]
    assert initial_phases(0, [0], 4)[0].tolist() == pytest.approx(first, abs=1e-6)


@pytest.mark.parametrize("seed", [0, 1, 2**32, 2**63, MAX_SEED])
@pytest.mark.parametrize("width", [1, 4, 7, 1032])
def test_the_compiled_loop_is_the_tensor_formula(seed: int, width: int) -> None:
    indices = [0, 1, 2**31, 2**32 - 1, 2**32, MAX_INDEX]
    compiled = initial_phases(seed, indices, width)
    assert compiled.dtype == torch.float32
    assert torch.equal(compiled, phases_torch(seed, torch.tensor(indices), width))


def test_phases_are_uniform_on_the_circle() -> None:
    phases = initial_phases(7, range(1000), 1000).double()
    assert phases.min() >= -math.pi - 1e-6
    assert phases.max() < math.pi
    for harmonic in (1, 2, 3):  # a million samples: the mean resultant is about 1e-3
        wave = torch.polar(torch.ones_like(phases), harmonic * phases)
        assert wave.mean().abs() < 4e-3
    assert abs(phases.var() / (math.pi**2 / 3) - 1) < 5e-3


def test_neighbouring_images_and_seeds_share_nothing() -> None:
    rows = torch.cat([initial_phases(seed, range(50), 64) for seed in (0, 1, 2**32)])
    correlation = torch.corrcoef(rows) - torch.eye(len(rows))
    assert correlation.abs().max() < 0.6  # 11,175 pairs of 64 samples: chance reaches 0.5
    assert len(rows.unique(dim=0)) == len(rows)


@pytest.mark.parametrize("seed", [-1, MAX_SEED + 1, 1.5, True, "7", None])
def test_a_seed_out_of_range_is_refused(seed: object) -> None:
    with pytest.raises(InputError, match="seed is"):
        initial_phases(seed, range(1), 8)  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, MAX_INDEX + 1])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(InputError, match=f"image index is {index}"):
        initial_phases(0, [5, index], 8)


def test_a_fractional_index_is_refused() -> None:
    with pytest.raises(InputError, match="give whole numbers"):
        initial_phases(0, [0.5], 8)  # type: ignore[list-item]


@pytest.mark.slow
def test_it_works_where_no_compile_cache_can_be_written(tmp_path: Path) -> None:
    """A read-only installation with no home, as in many containers."""
    package = tmp_path / "un0"
    package.mkdir()
    source = Path(sys.modules["un0"].__file__ or "").parent
    for file in source.glob("*.py"):
        (package / file.name).write_text(file.read_text())
    (package / "__pycache__").write_text("a file where the cache folder would be")
    (tmp_path / "cache").write_text("and another")
    blocked = str(tmp_path / "cache")
    env = {**os.environ, "HOME": blocked, "XDG_CACHE_HOME": blocked, "PYTHONPATH": str(tmp_path)}
    env.pop("NUMBA_CACHE_DIR", None)
    code = "import un0.noise as n; print(n.__file__, n.initial_phases(3, range(2), 6).tolist())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, cwd=tmp_path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split(" ", 1) == [
        str(package / "noise.py"),
        f"{initial_phases(3, range(2), 6).tolist()}\n",
    ]


def test_nothing_asked_is_nothing_given() -> None:
    assert initial_phases(0, [], 8).shape == (0, 8)
    assert np.array_equal(initial_phases(0, range(9, 3, -2), 8), initial_phases(0, [9, 7, 5], 8))
