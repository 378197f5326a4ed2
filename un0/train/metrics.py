"""Set-against-set measures, on feature vectors (N, D) or images (N, 3, H, W) in [-1, 1]."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from torch import Tensor
from torch.nn import functional as F

ROWS = 1000  # rows of a distance matrix held at once


def frechet(a_ND: Tensor, b_ND: Tensor) -> float:
    """Frechet distance between Gaussians fitted to two sets (Dowson and Landau 1982)."""
    a, b = a_ND.double().numpy(), b_ND.double().numpy()
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # tr sqrt(A B) = sum of square roots of the eigenvalues of the symmetric sqrt(A) B sqrt(A)
    values, vectors = scipy.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    cross = np.sqrt(scipy.linalg.eigvalsh(root @ cov_b @ root).clip(min=0)).sum()
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


@dataclass(frozen=True)
class Manifold:
    """Precision and recall (Kynkaanniemi 2019), density and coverage (Naeem 2020)."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold(real_ND: Tensor, fake_MD: Tensor, k: int = 5) -> Manifold:
    """How two sets overlap, each set's shape being the balls to its points' k-th neighbours.

    precision: share of fakes in some real's ball. recall: share of reals in some fake's ball.
    density: mean number of real balls a fake is in, over k. coverage: share of reals whose ball
    holds a fake. Both sets need more than k points.
    """
    real_radius, fake_radius = kth_distance(real_ND, k), kth_distance(fake_MD, k)
    inside_real = torch.zeros(len(fake_MD))
    covered, recalled = torch.zeros(len(real_ND), dtype=torch.bool), []
    for start in range(0, len(real_ND), ROWS):
        rows = slice(start, start + ROWS)
        distance = torch.cdist(real_ND[rows], fake_MD)
        in_real_ball = distance <= real_radius[rows, None]
        inside_real += in_real_ball.sum(dim=0)
        covered[rows] = in_real_ball.any(dim=1)
        recalled.append((distance <= fake_radius).any(dim=1))
    return Manifold(
        precision=float((inside_real > 0).float().mean()),
        recall=float(torch.cat(recalled).float().mean()),
        density=float(inside_real.mean() / k),
        coverage=float(covered.float().mean()),
    )


def kth_distance(x_ND: Tensor, k: int) -> Tensor:
    """(N,) distance of each point to its k-th nearest other point."""
    found = [
        torch.cdist(x_ND[i : i + ROWS], x_ND).kthvalue(k + 1, dim=1).values
        for i in range(0, len(x_ND), ROWS)
    ]
    return torch.cat(found)


def nearest_distance(x_ND: Tensor, to_MD: Tensor, chunk: int = 500) -> Tensor:
    """(N,) distance of each row of x to the nearest row of ``to``."""
    found = [
        torch.cdist(x_ND[i : i + chunk], to_MD).amin(dim=1) for i in range(0, len(x_ND), chunk)
    ]
    return torch.cat(found)


def within_class_diversity(features_ND: Tensor, class_ids_N: Tensor) -> float:
    """Root mean square distance of samples from their class's mean, averaged over classes."""
    spreads = []
    for c in class_ids_N.unique():
        members = features_ND[class_ids_N == c]
        spreads.append((members - members.mean(dim=0)).square().sum(dim=1).mean().sqrt())
    return float(torch.stack(spreads).mean())


def sharpness(images_NCHW: Tensor) -> Tensor:
    """(N,) root mean square of the Laplacian of the grey picture: the strength of its detail."""
    gray = images_NCHW.mean(dim=1, keepdim=True)
    kernel = gray.new_tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]
    return F.conv2d(gray, kernel).square().mean(dim=(1, 2, 3)).sqrt()


def pixel_spread(images_NCHW: Tensor, class_ids_N: Tensor) -> float:
    """Standard deviation of a pixel within a class, averaged: near zero, the model collapsed."""
    per_class = [images_NCHW[class_ids_N == c].std(dim=0).mean() for c in class_ids_N.unique()]
    return float(torch.stack(per_class).mean())
