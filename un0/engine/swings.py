"""The dynamics of one tile of images as one compiled loop. See ``un0.engine.cpu``.

In names of arrays O stands for a team member's own oscillators, N for all of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32
from numpy.typing import NDArray

from un0.config import Solver
from un0.engine.product import BF16, FP32, INT8, Floats, multiply, sin_cos, to_bf16, to_levels
from un0.engine.team import Part, meet, share
from un0.engine.vectors import PANEL
from un0.jit import compiled

BLOCK = 512  # words of K worked on at once: 64 KiB of a panel fit in the second cache with the rows
CACHED = 2**18  # bytes of rows that fit there whole

# Stage s is taken at x + sum A[s, j] k_j, and a step adds sum A[-1, j] k_j (``un0.integrate``).
TABLEAUS: dict[Solver, Floats] = {
    "euler": np.array([[0], [1]], dtype=np.float32),
    "rk4": np.array(
        [
            [0, 0, 0, 0],
            [1 / 3, 0, 0, 0],
            [-1 / 3, 1, 0, 0],
            [1, -1, 1, 0],
            [1 / 8, 3 / 8, 3 / 8, 1 / 8],
        ],
        dtype=np.float32,
    ),
}


@compiled
def swing(
    part: Part,
    theta_BN: Floats,
    phi_BM: Floats,
    class_ids: NDArray[np.int64],
    steps: int,
    tableau: Floats,
    omega_N: Floats,
    K: NDArray[Any],
    K_scale_N: Floats,
    K_sum_N: NDArray[np.int32],
    drive_CMN: Floats,
    omega_cond_M: Floats,
    K_cond_MM: Floats,
    waves_TB2N: Floats,
    words_TB2W: NDArray[np.uint32],
) -> None:
    """Integrate both blocks of phases in place. All rates are per step.

    A member of a team does the oscillators of its panels, for all images; it has phi for itself.
    Arrays are the team's otherwise. The waves have two buffers used in turn, so that no member
    overwrites what another still reads; a team of one has one. K: ``pack``ed; the size of its last
    axis gives its kind. For int8, K_scale_N is the size of a unit and K_sum_N what the offset of
    the levels adds to each sum.
    """
    images, n = theta_BN.shape
    m = phi_BM.shape[1]
    stages = tableau.shape[0] - 1
    numbers = K.shape[4]
    first, last = share(part, K.shape[1])
    lo, hi = PANEL * first, min(PANEL * last, n)
    own = slice(lo, hi)
    pull_B2O = np.empty((images, 2, PANEL * (last - first)), dtype=np.float32)
    waves_B2M = np.empty((images, 2, m), dtype=np.float32)
    drive_2O = np.empty((2, hi - lo), dtype=np.float32)
    at_O, at_M = np.empty(hi - lo, dtype=np.float32), np.empty(m, dtype=np.float32)
    change_SBO = np.empty((stages, images, hi - lo), dtype=np.float32)
    change_SBM = np.empty((stages, images, m), dtype=np.float32)
    turn, back = 0, False
    for _ in range(steps):
        for s in range(stages):
            waves_B2N, words_B2W = waves_TB2N[turn], words_TB2W[turn]
            turn = (turn + 1) % waves_TB2N.shape[0]
            for b in range(images):
                _stage(theta_BN[b][own], change_SBO[:, b], tableau[s], s, at_O)
                sin, cos = waves_B2N[b, 0][own], waves_B2N[b, 1][own]
                sin_cos(at_O, sin, cos)
                if numbers != FP32:
                    words = slice(lo // numbers, hi // numbers)
                    _narrow(sin, words_B2W[b, 0][words], numbers)
                    _narrow(cos, words_B2W[b, 1][words], numbers)
                _stage(phi_BM[b], change_SBM[:, b], tableau[s], s, at_M)
                sin_cos(at_M, waves_B2M[b, 0], waves_B2M[b, 1])
                _condition(waves_B2M[b], omega_cond_M, K_cond_MM, change_SBM[s, b])
            if not meet(part):
                return
            a = waves_B2N.ctypes.data if numbers == FP32 else words_B2W.ctypes.data
            _couple(a, n // numbers, 2 * images, K, first, back, pull_B2O)
            back = not back
            for b in range(images):
                if numbers == INT8:
                    _rescale(pull_B2O[b], K_scale_N[own], K_sum_N[own])
                _drive(waves_B2M[b], drive_CMN[class_ids[b]], lo, drive_2O)
                sin, cos = waves_B2N[b, 0][own], waves_B2N[b, 1][own]
                _torque(omega_N[own], sin, cos, pull_B2O[b], drive_2O, change_SBO[s, b])
        for b in range(images):
            theta_O = theta_BN[b][own]
            _stage(theta_O, change_SBO[:, b], tableau[stages], stages, theta_O)
            _stage(phi_BM[b], change_SBM[:, b], tableau[stages], stages, phi_BM[b])


@compiled
def _stage(x: Floats, change_SN: Floats, weights: Floats, stages: int, out: Floats) -> None:
    """out (N,) = x + the weighted changes of the first ``stages`` stages; out may be x."""
    for i in range(x.size):
        out[i] = x[i]
    for s in range(stages):
        for i in range(x.size):
            out[i] += weights[s] * change_SN[s, i]


@compiled
def _condition(wave_2M: Floats, omega_M: Floats, K_MM: Floats, change_M: Floats) -> None:
    for i in range(change_M.size):
        pull_sin, pull_cos = float32(0), float32(0)
        for j in range(change_M.size):
            pull_sin += K_MM[i, j] * wave_2M[0, j]
            pull_cos += K_MM[i, j] * wave_2M[1, j]
        change_M[i] = omega_M[i] + (wave_2M[1, i] * pull_sin - wave_2M[0, i] * pull_cos)


@compiled
def _narrow(x: Floats, words: NDArray[np.uint32], numbers: int) -> None:
    """x (N,) in [-1, 1] as words of ``numbers`` numbers."""
    if numbers == BF16:
        to_bf16(x, words.view(np.uint16))
    else:
        to_levels(x, words.view(np.uint8))


@compiled
def _couple(
    a: int, words: int, rows: int, K: NDArray[Any], first: int, back: bool, pull_B2O: Floats
) -> None:
    """pull = waves @ K.T for the panels from ``first`` on, still in whole numbers for int8.

    a: the address of the waves' ``rows``, ``words`` words each. Where they fit in the second cache,
    K is gone through panel by panel, every other time ``back``wards: what the caches kept of it
    from the last time comes first. Else block by block, so that the rows' part of one fits.
    """
    blocks, panels, block, _, numbers = K.shape
    own = pull_B2O.shape[2] // PANEL
    w, c, c_row = K.ctypes.data, pull_B2O.ctypes.data, 4 * PANEL * own
    by_panel = 4 * words * rows <= CACHED
    for step in range(blocks * own):
        if by_panel:
            index, panel = step % blocks, step // blocks
            panel = own - 1 - panel if back else panel
        else:
            index, panel = step // own, step % own
        multiply(
            numbers,
            a + 4 * index * block,
            4 * words,
            w + 4 * PANEL * block * (index * panels + first + panel),
            c + 4 * PANEL * panel,
            c_row,
            min(block, words - index * block),
            1 if index == 0 else 0,
            rows,
        )


@compiled
def _rescale(pull_2N: Floats, scale_N: Floats, offset_N: NDArray[np.int32]) -> None:
    """Sums of whole numbers, as they lie in the memory of pull, to what they stand for."""
    for half in range(2):
        pull_N, sums_N = pull_2N[half], pull_2N[half].view(np.int32)
        for i in range(scale_N.size):
            pull_N[i] = float32(sums_N[i] - offset_N[i]) * scale_N[i]


@compiled
def _drive(wave_2M: Floats, drive_MN: Floats, lo: int, out_2O: Floats) -> None:
    """What the conditioning waves do to the oscillators from ``lo`` on."""
    for half in range(2):
        out_O = out_2O[half]
        for i in range(out_O.size):
            out_O[i] = float32(0)
        for m in range(wave_2M.shape[1]):
            amount, row_O = wave_2M[half, m], drive_MN[m][lo : lo + out_O.size]
            for i in range(out_O.size):
                out_O[i] += amount * row_O[i]


@compiled
def _torque(
    omega_O: Floats,
    sin: Floats,
    cos: Floats,
    pull_2O: Floats,
    drive_2O: Floats,
    change_O: Floats,
) -> None:
    pull_sin, pull_cos, drive_sin, drive_cos = pull_2O[0], pull_2O[1], drive_2O[0], drive_2O[1]
    for i in range(change_O.size):
        by_sin, by_cos = pull_sin[i] + drive_sin[i], pull_cos[i] + drive_cos[i]
        change_O[i] = omega_O[i] + (cos[i] * by_sin - sin[i] * by_cos)
