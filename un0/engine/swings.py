"""The dynamics of one tile of images as one compiled loop. See ``un0.engine.cpu``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import float32
from numpy.typing import NDArray

from un0.config import Solver
from un0.engine.product import BF16, FP32, INT8, Floats, multiply, sin_cos, to_bf16, to_levels
from un0.engine.vectors import PANEL
from un0.jit import compiled

BLOCK = 512  # words of K worked on at once: 64 KiB of a panel fit in the second cache with the rows

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
) -> None:
    """Integrate both blocks of phases in place. All rates are per step.

    K: ``pack``ed; its last axis tells its kind. For int8, K_scale_N is the size of a unit and
    K_sum_N what the offset of the levels adds to each sum.
    """
    images, n = theta_BN.shape
    m = phi_BM.shape[1]
    stages = tableau.shape[0] - 1
    numbers = K.shape[4]
    waves_B2N = np.empty((images, 2, n), dtype=np.float32)
    words_B2W = np.empty((images, 2, n // numbers), dtype=np.uint32)
    pull_B2N = np.empty((images, 2, K.shape[1] * PANEL), dtype=np.float32)
    waves_B2M = np.empty((images, 2, m), dtype=np.float32)
    drive_2N = np.empty((2, n), dtype=np.float32)
    at_N, at_M = np.empty(n, dtype=np.float32), np.empty(m, dtype=np.float32)
    change_SBN = np.empty((stages, images, n), dtype=np.float32)
    change_SBM = np.empty((stages, images, m), dtype=np.float32)
    for _ in range(steps):
        for s in range(stages):
            for b in range(images):
                _stage(theta_BN[b], change_SBN[:, b], tableau[s], s, at_N)
                sin_cos(at_N, waves_B2N[b, 0], waves_B2N[b, 1])
                _stage(phi_BM[b], change_SBM[:, b], tableau[s], s, at_M)
                sin_cos(at_M, waves_B2M[b, 0], waves_B2M[b, 1])
                _condition(waves_B2M[b], omega_cond_M, K_cond_MM, change_SBM[s, b])
            _couple(waves_B2N, words_B2W, K, pull_B2N)
            for b in range(images):
                if numbers == INT8:
                    _rescale(pull_B2N[b], K_scale_N, K_sum_N)
                _drive(waves_B2M[b], drive_CMN[class_ids[b]], drive_2N)
                _torque(omega_N, waves_B2N[b], pull_B2N[b], drive_2N, change_SBN[s, b])
        for b in range(images):
            _stage(theta_BN[b], change_SBN[:, b], tableau[stages], stages, theta_BN[b])
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
def _couple(
    waves_B2N: Floats, words_B2W: NDArray[np.uint32], K: NDArray[Any], pull_B2N: Floats
) -> None:
    """pull = waves @ K.T, still in whole numbers for int8."""
    blocks, panels, block, _, numbers = K.shape
    words = words_B2W.shape[2]
    a = waves_B2N.ctypes.data
    if numbers != FP32:
        a = words_B2W.ctypes.data
        for b in range(waves_B2N.shape[0]):
            for half in range(2):
                if numbers == BF16:
                    to_bf16(waves_B2N[b, half], words_B2W[b, half].view(np.uint16))
                else:
                    to_levels(waves_B2N[b, half], words_B2W[b, half].view(np.uint8))
    w, c, c_row = K.ctypes.data, pull_B2N.ctypes.data, 4 * PANEL * panels
    for index in range(blocks):
        count = min(block, words - index * block)
        for panel in range(panels):
            multiply(
                numbers,
                a + 4 * index * block,
                4 * words,
                w + 4 * PANEL * block * (index * panels + panel),
                c + 4 * PANEL * panel,
                c_row,
                count,
                1 if index == 0 else 0,
                2 * waves_B2N.shape[0],
            )


@compiled
def _rescale(pull_2N: Floats, scale_N: Floats, offset_N: NDArray[np.int32]) -> None:
    """Sums of whole numbers, as they lie in the memory of pull, to what they stand for."""
    for half in range(2):
        pull_N, sums_N = pull_2N[half], pull_2N[half].view(np.int32)
        for i in range(scale_N.size):
            pull_N[i] = float32(sums_N[i] - offset_N[i]) * scale_N[i]


@compiled
def _drive(wave_2M: Floats, drive_MN: Floats, out_2N: Floats) -> None:
    for half in range(2):
        out_N = out_2N[half]
        for i in range(out_N.size):
            out_N[i] = float32(0)
        for m in range(wave_2M.shape[1]):
            amount, row_N = wave_2M[half, m], drive_MN[m]
            for i in range(out_N.size):
                out_N[i] += amount * row_N[i]


@compiled
def _torque(
    omega_N: Floats, wave_2N: Floats, pull_2N: Floats, drive_2N: Floats, change_N: Floats
) -> None:
    sin, cos, pull_sin, pull_cos = wave_2N[0], wave_2N[1], pull_2N[0], pull_2N[1]
    drive_sin, drive_cos = drive_2N[0], drive_2N[1]
    for i in range(change_N.size):
        by_sin, by_cos = pull_sin[i] + drive_sin[i], pull_cos[i] + drive_cos[i]
        change_N[i] = omega_N[i] + (cos[i] * by_sin - sin[i] * by_cos)
