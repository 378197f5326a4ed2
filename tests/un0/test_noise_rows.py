"""Noise of images that have seeds of their own: the same function, one key a row."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from un0.errors import InputError
from un0.noise import MAX_INDEX, MAX_SEED, initial_phases, phases_torch
from un0.noise_rows import RowNoise
from un0.sampler import Sampler
from un0.testing import random_model

PAIRS = st.lists(
    st.tuples(st.integers(0, MAX_SEED), st.integers(0, MAX_INDEX)), min_size=1, max_size=9
)


def noise(pairs: list[tuple[int, int]]) -> RowNoise:
    seeds, indices = zip(*pairs, strict=True)
    return RowNoise(np.array(seeds, np.uint64), np.array(indices, np.int64))


@given(PAIRS, st.integers(1, 19))
def test_each_row_is_that_of_its_seed_and_index(pairs: list[tuple[int, int]], width: int) -> None:
    rows = noise(pairs)
    expected = torch.cat([initial_phases(seed, [index], width) for seed, index in pairs])
    assert torch.equal(rows.phases(width), expected)
    keys = torch.from_numpy(rows.seeds.view(np.int64))[:, None]
    assert torch.equal(phases_torch(keys, torch.from_numpy(rows.indices), width), expected)


@pytest.mark.parametrize("engine", [None, "eager"])
def test_an_image_with_its_own_seed_is_the_same_anywhere(engine: str | None) -> None:
    sampler = Sampler(random_model(), device="cpu", threads=1, engine=engine)
    alone = sampler.generate(77, 0, [4])
    pairs = [(5, 3), (77, 0), (5, 5), (5, 6)]
    tiles = sampler.generate_tiles(5, 3, np.array([1, 4, 2, 3]), noise(pairs))
    together = np.concatenate([images for _, images in tiles])
    assert np.array_equal(together[1:2], alone)
    usual = sampler.generate(5, 3, [1, 4, 2, 3])
    assert np.array_equal(together[[0, 2, 3]], usual[[0, 2, 3]])


def test_what_does_not_fit_the_images_is_refused() -> None:
    sampler = Sampler(random_model(), device="cpu", threads=1)
    with pytest.raises(InputError, match="2 seeds and 2 indices for 3 images"):
        sampler.generate_tiles(0, 0, [1, 2, 3], noise([(1, 1), (2, 2)]))
    with pytest.raises(InputError, match="image index is -1"):
        sampler.generate_tiles(0, 0, [1], RowNoise(np.zeros(1, np.uint64), np.array([-1])))
