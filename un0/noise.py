"""Initial phases as a pure function of (seed, image index): Philox4x32-10.

Philox is the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random numbers:
as easy as 1, 2, 3" (SC 2011). Image ``i`` of a job gets the same phases whatever the batch, shard
or machine, because nothing but the seed and ``i`` enters:

    key     = (seed low, seed high)              32-bit halves
    counter = (block j, 0, i low, i high)        gives the words of phases 4j .. 4j + 3
    phase   = float32((word >> 8) - 2**23) * float32(pi / 2**23)

The difference is exact in float32, so a phase is rounded once, the same on every device, and lies
in [-pi, pi) (of float32's pi). Two implementations of this one function follow: tensor operations
for any device, which are also the oracle, and a compiled loop for CPUs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from un0.errors import InputError

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key after each round
ROUNDS = 10
PHASE_STEP = float(np.float32(math.pi / 2**23))
MASK = 0xFFFFFFFF
MAX_SEED, MAX_INDEX = 2**64 - 1, 2**63 - 1


def initial_phases(
    seed: int, indices: Sequence[int], width: int, device: torch.device | str = "cpu"
) -> Tensor:
    """Phases (B, width) float32 in [-pi, pi), one row per image index.

    seed: 0 to 2**64 - 1. indices: each 0 to 2**63 - 1; a ``range`` is the usual form. width:
    ``n + n_cond``. Raises InputError when one is out of range.
    """
    rows = check_indices(indices)
    seed = check_seed(seed)
    if torch.device(device).type == "cpu":
        return torch.from_numpy(_phases_cpu(seed, rows, width))
    return phases_torch(seed, torch.from_numpy(rows).to(device), width)


def check_seed(seed: int) -> int:
    """The seed, or InputError unless it is a whole number of 64 bits."""
    if isinstance(seed, bool) or not isinstance(seed, int | np.integer):
        raise InputError(f"seed is {seed!r}; give a whole number from 0 to {MAX_SEED}")
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed is {seed}; it must lie in 0 to {MAX_SEED} (2**64 - 1)")
    return int(seed)


def check_indices(indices: Sequence[int]) -> NDArray[np.int64]:
    """The image indices as int64, or InputError when one is out of range."""
    low, high = (min(indices), max(indices)) if len(indices) else (0, 0)
    if low < 0 or high > MAX_INDEX:
        bad = low if low < 0 else high
        raise InputError(f"image index is {bad}; it must lie in 0 to {MAX_INDEX} (2**63 - 1)")
    if isinstance(indices, range):
        return np.arange(indices.start, indices.stop, indices.step, dtype=np.int64)
    rows = np.asarray(indices)
    if rows.size and rows.dtype.kind not in "iu":
        raise InputError(f"image indices have type {rows.dtype}; give whole numbers")
    return rows.astype(np.int64)


def philox_torch(
    counter: tuple[Tensor, ...], key: tuple[int | Tensor, int | Tensor]
) -> tuple[Tensor, ...]:
    """The four output words of Philox4x32-10, as int64 tensors of the counter words' shape."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        # The 64-bit products wrap into the sign; the mask after the shift undoes that.
        p0, p1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (p1 >> 32) & MASK ^ c1 ^ k0,
            p1 & MASK,
            (p0 >> 32) & MASK ^ c3 ^ k1,
            p0 & MASK,
        )
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return c0, c1, c2, c3


def phases_torch(seed: int | Tensor, indices_B: Tensor, width: int) -> Tensor:
    """``initial_phases`` on the device of ``indices_B`` (int64), in tensor operations.

    seed: one number, or one of each image: int64 (B, 1) with the 64 bits of the unsigned one.
    """
    blocks = torch.arange(-(-width // 4), device=indices_B.device)[None, :]
    low, high = (indices_B & MASK)[:, None], (indices_B >> 32)[:, None]
    counter = torch.broadcast_tensors(blocks, torch.zeros_like(blocks), low, high)
    words = philox_torch(counter, (seed & MASK, seed >> 32 & MASK))
    whole = (torch.stack(words, dim=-1).flatten(1)[:, :width] >> 8) - 2**23
    return whole.to(torch.float32) * PHASE_STEP


def _phases_cpu(seed: int, indices: NDArray[np.int64], width: int) -> NDArray[np.float32]:
    from un0.noise_cpu import fill_phases  # numba: imported at first use, it is slow to import

    out = np.empty((len(indices), width), dtype=np.float32)
    fill_phases(np.uint64(seed), indices, out)
    return out
