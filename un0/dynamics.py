"""The Kuramoto dynamics of Un-0, written to be read: the oracle that every fast path is held to.

Source of the mathematics: Un-0 (Unconventional AI, 2026). Shapes: B images, N main
oscillators, M conditioning oscillators.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Couplings:
    """The constants of the flow as they act: diagonals zeroed, mup scales applied.

    omega_N, K_NN, omega_cond_M, K_cond_MM: shared by all images; drive_BNM: each image's class.
    """

    omega_N: Tensor
    K_NN: Tensor
    omega_cond_M: Tensor
    K_cond_MM: Tensor
    drive_BNM: Tensor


def without_diagonal(K: Tensor) -> Tensor:
    """K with its diagonal treated as zero: an oscillator does not couple to itself."""
    return K - torch.diag(torch.diagonal(K))


def coupling_torque(theta_BN: Tensor, K_NN: Tensor) -> Tensor:
    """sum_j K_ij sin(theta_j - theta_i), (B, N), by the angle-difference identity."""
    sin, cos = torch.sin(theta_BN), torch.cos(theta_BN)
    return cos * (sin @ K_NN.T) - sin * (cos @ K_NN.T)


def drive_torque(theta_BN: Tensor, phi_BM: Tensor, drive_BNM: Tensor) -> Tensor:
    """sum_m D_im sin(phi_m - theta_i), (B, N): the class acting on the main oscillators."""
    sin_phi = torch.einsum("bnm,bm->bn", drive_BNM, torch.sin(phi_BM))
    cos_phi = torch.einsum("bnm,bm->bn", drive_BNM, torch.cos(phi_BM))
    return torch.cos(theta_BN) * sin_phi - torch.sin(theta_BN) * cos_phi


def phase_velocity(theta_BN: Tensor, phi_BM: Tensor, c: Couplings) -> tuple[Tensor, Tensor]:
    """d/dt of the main and conditioning phases, (B, N) and (B, M), in radians per unit time.

    The conditioning block never feels the main block.
    """
    dtheta = (
        c.omega_N + coupling_torque(theta_BN, c.K_NN) + drive_torque(theta_BN, phi_BM, c.drive_BNM)
    )
    dphi = c.omega_cond_M + coupling_torque(phi_BM, c.K_cond_MM)
    return dtheta, dphi
