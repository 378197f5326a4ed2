"""``un0.noise`` as a compiled loop. Imports numba, so import it only where it is used."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32, int64, uint64
from numpy.typing import NDArray

from un0.jit import compiled
from un0.noise import MASK, MULTIPLIERS, PHASE_STEP, ROUNDS, WEYL

# Words of 32 bits live in 64-bit variables, which is how the compiler vectorises their products.
_M0, _M1 = np.uint64(MULTIPLIERS[0]), np.uint64(MULTIPLIERS[1])
_W0, _W1 = np.uint64(WEYL[0]), np.uint64(WEYL[1])
_MASK, _32, _8 = np.uint64(MASK), np.uint64(32), np.uint64(8)
_STEP = np.float32(PHASE_STEP)


@compiled
def _phase(word: Any) -> Any:
    return float32(int64(word >> _8) - 2**23) * _STEP


@compiled
def _block(j: Any, low: Any, high: Any, k0: Any, k1: Any) -> Any:
    """Phases 4j to 4j + 3 of one image."""
    c0, c1, c2, c3 = uint64(j), uint64(0), low, high
    for _ in range(ROUNDS):
        p0, p1 = _M0 * c0, _M1 * c2
        c0, c1, c2, c3 = (p1 >> _32) ^ c1 ^ k0, p1 & _MASK, (p0 >> _32) ^ c3 ^ k1, p0 & _MASK
        k0, k1 = (k0 + _W0) & _MASK, (k1 + _W1) & _MASK
    return _phase(c0), _phase(c1), _phase(c2), _phase(c3)


@compiled
def fill_phases(seed: np.uint64, indices: NDArray[np.int64], out: NDArray[np.float32]) -> None:
    """Write the phases of image ``indices[b]`` into row b of ``out`` (B, width)."""
    k0, k1 = seed & _MASK, seed >> _32
    width = out.shape[1]
    whole_blocks = width // 4
    for b in range(out.shape[0]):
        index = uint64(indices[b])
        low, high = index & _MASK, index >> _32
        for j in range(whole_blocks):
            x0, x1, x2, x3 = _block(j, low, high, k0, k1)
            out[b, 4 * j], out[b, 4 * j + 1], out[b, 4 * j + 2], out[b, 4 * j + 3] = x0, x1, x2, x3
        rest = _block(whole_blocks, low, high, k0, k1)
        for w in range(4 * whole_blocks, width):
            out[b, w] = rest[w - 4 * whole_blocks]


@compiled
def fill_rows(
    seeds: NDArray[np.uint64], indices: NDArray[np.int64], out: NDArray[np.float32]
) -> None:
    """The same, where every row has a seed of its own."""
    for b in range(out.shape[0]):
        fill_phases(seeds[b], indices[b : b + 1], out[b : b + 1])
