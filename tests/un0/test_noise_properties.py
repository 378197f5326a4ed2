"""An image's phases depend on the seed and its index, and on nothing else."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from un0.noise import MAX_INDEX, MAX_SEED, initial_phases, phases_torch

seeds = st.integers(0, MAX_SEED)
indices = st.integers(0, MAX_INDEX)
batches = st.lists(indices, min_size=1, max_size=12)
widths = st.integers(1, 70)


@given(seeds, batches, widths)
def test_any_batch_is_its_images_one_by_one(seed: int, batch: list[int], width: int) -> None:
    together = initial_phases(seed, batch, width)
    for row, index in zip(together, batch, strict=True):
        assert torch.equal(row, initial_phases(seed, [index], width)[0])


@given(seeds, indices, st.integers(0, 40), st.integers(0, 40), widths)
def test_a_range_cut_anywhere_is_the_same_range(
    seed: int, start: int, left: int, right: int, width: int
) -> None:
    start = min(start, MAX_INDEX - left - right)
    whole = initial_phases(seed, range(start, start + left + right), width)
    parts = [
        initial_phases(seed, range(start, start + left), width),
        initial_phases(seed, range(start + left, start + left + right), width),
    ]
    assert torch.equal(whole, torch.cat(parts))


@given(seeds, batches, widths)
def test_both_implementations_agree_to_the_bit(seed: int, batch: list[int], width: int) -> None:
    compiled = initial_phases(seed, batch, width)
    assert torch.equal(compiled, phases_torch(seed, torch.tensor(batch), width))


@given(seeds, indices, st.integers(1, 40), st.integers(1, 40))
def test_a_narrower_row_is_the_beginning_of_a_wider_one(
    seed: int, index: int, width: int, more: int
) -> None:
    wide = initial_phases(seed, [index], width + more)
    assert torch.equal(initial_phases(seed, [index], width), wide[:, :width])


@given(seeds, batches)
def test_phases_lie_on_the_circle(seed: int, batch: list[int]) -> None:
    phases = initial_phases(seed, batch, 33)
    pi = torch.tensor(torch.pi, dtype=torch.float32)
    assert bool(((phases >= -pi) & (phases < pi)).all())
