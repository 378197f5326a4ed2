"""The work in an image."""

from __future__ import annotations

from itertools import pairwise

from un0.config import SEED_SIZE, ModelConfig


def gflop_per_image(c: ModelConfig) -> float:
    """10^9 floating-point operations of one image's products and convolutions, as the mathematics
    is written; engines may need fewer."""
    stages = 1 if c.solver == "euler" else 4
    flop = c.num_steps * stages * 2 * 2 * c.n * (c.n + c.n_cond)
    side = SEED_SIZE
    for c_in, c_out in pairwise(c.channels):
        side *= 2
        flop += 2 * 9 * side * side * (c_in + c_out) * c_out
    return (flop + 2 * 9 * side * side * c.channels[-1] * 3) / 1e9
