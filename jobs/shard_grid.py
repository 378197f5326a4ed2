"""How a job is cut into shards, the unit of work, retry and commit, when its spec does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.types import ImageEncoding

SHARD_BYTES = 32 * 2**20  # of output: large enough for object stores, small enough to lose
MOST_BYTES = 128 * 2**20  # half of what a replica holds in memory: one is made while one is sent
FAST_S = 0.5  # of the fastest hardware at least: a few objects a second
SLOW_S = 300.0  # of the slowest at most: what a lost node costs
MIN_SHARDS = 16  # so that small jobs spread and show progress
ALIGN = (1024, 256, 64)  # images: whole tiles for the engines, of GPUs where shards are large
BYTES_PER_PIXEL: dict[ImageEncoding, float] = {"png": 2.5, "webp": 2.0, "jpeg": 0.8, "raw": 3.0}


@dataclass(frozen=True)
class ShardGrid:
    """images: of each shard but the last. reason: what decided, in words."""

    images: int
    reason: str


def choose_grid(
    count: int, image_size: int, encoding: ImageEncoding, images_per_s: Sequence[float] = ()
) -> ShardGrid:
    """The grid of a job of so many images.

    images_per_s: of each hardware class that was measured with the job's model, of the whole path
    to the store. Shards are about 32 MB of output; larger where the fastest would commit one more
    than every half second; smaller where the slowest would need more than five minutes for one;
    at most 128 MB; and there are at least 16 in a job.
    """
    bytes_each = image_size**2 * BYTES_PER_PIXEL[encoding]
    images, reason = SHARD_BYTES / bytes_each, f"{SHARD_BYTES >> 20} MiB of output"
    if images_per_s:
        slowest, fastest = min(images_per_s), max(images_per_s)
        if images > slowest * SLOW_S:
            images = slowest * SLOW_S
            reason = f"{SLOW_S:.0f} s of the slowest hardware, {slowest:,.0f} images/s"
        if images < fastest * FAST_S:
            images = fastest * FAST_S
            reason = f"{FAST_S} s of the fastest hardware, {fastest:,.0f} images/s"
    if images > MOST_BYTES / bytes_each:
        images, reason = MOST_BYTES / bytes_each, f"{MOST_BYTES >> 20} MiB of output at most"
    if images > (by_count := -(-count // MIN_SHARDS)):
        images, reason = by_count, f"at least {MIN_SHARDS} shards in a job"
    whole = max(1, int(images))
    align = next((align for align in ALIGN if 8 * align <= whole), ALIGN[-1])
    return ShardGrid(-(-whole // align) * align, reason)
