"""Shards that a fast device commits a few of a second, and a slow one can lose."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.types import ImageEncoding
from jobs.shard_grid import ALIGN, BYTES_PER_PIXEL, MIN_SHARDS, MOST_BYTES, choose_grid


@pytest.mark.parametrize(
    ("count", "rates", "images", "reason"),
    [
        (10**7, (), 13_312, "32 MiB of output"),
        (10**7, (700.0,), 13_312, "32 MiB of output"),
        (10**7, (60_000.0,), 30_720, "0.5 s of the fastest hardware, 60,000 images/s"),
        (10**7, (2e6,), 53_248, "128 MiB of output at most"),
        (10**7, (10.0,), 3_072, "300 s of the slowest hardware, 10 images/s"),
        (10**7, (10.0, 60_000.0), 30_720, "0.5 s of the fastest hardware, 60,000 images/s"),
        (5000, (2e6,), 320, "at least 16 shards in a job"),
        (1, (), 64, "at least 16 shards in a job"),
    ],
)
def test_what_decides(count: int, rates: tuple[float, ...], images: int, reason: str) -> None:
    grid = choose_grid(count, 32, "png", rates)
    assert (grid.images, grid.reason) == (images, reason)


@given(
    st.integers(1, 10**12),
    st.sampled_from([8, 32, 64, 256]),
    st.sampled_from(list(BYTES_PER_PIXEL)),
    st.lists(st.floats(0.01, 1e8), max_size=5),
)
def test_shards_are_whole_tiles_of_bounded_size(
    count: int, side: int, encoding: ImageEncoding, rates: list[float]
) -> None:
    images = choose_grid(count, side, encoding, rates).images
    for tile in ALIGN:
        assert images % tile == 0 or (tile > ALIGN[-1] and images <= 9 * tile)
    assert images - 1024 < MOST_BYTES / (side**2 * BYTES_PER_PIXEL[encoding])
    assert images == 64 or -(-count // images) > MIN_SHARDS // 2
