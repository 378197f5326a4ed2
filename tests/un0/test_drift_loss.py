"""The drift loss against its formula written out plainly, and what it must do."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from un0.train.loss import drift, drift_loss, num_others

TEMPERATURES = [0.02, 0.05, 0.2]


def plain_drift(generated: Tensor, positives: Tensor, others: Tensor) -> Tensor:
    """One group, sample by sample and pair by pair, as un0's formula reads."""
    G, P = len(generated), len(positives)
    partners = [*positives, *generated, *others]
    d = [[float((g - y).norm()) for y in partners] for g in generated]
    pairs = [(i, j) for i in range(G) for j in range(len(partners)) if j != P + i]
    mean = sum(d[i][j] for i, j in pairs) / len(pairs)
    total = torch.zeros_like(generated)
    for temperature in TEMPERATURES:
        e = {(i, j): math.exp(-d[i][j] / mean / temperature) for i, j in pairs}
        row = [sum(v for (i, _), v in e.items() if i == k) for k in range(G)]
        column = [sum(v for (_, j), v in e.items() if j == k) for k in range(len(partners))]
        A = {(i, j): math.sqrt(v / row[i] * v / column[j]) for (i, j), v in e.items()}
        field = torch.zeros_like(generated)
        for i in range(G):
            a_p = sum(A[i, j] for j in range(P))
            a_n = sum(A[i, j] for j in range(P, len(partners)) if j != P + i)
            for j, y in enumerate(partners):
                if j < P:
                    field[i] += A[i, j] * a_n * y
                elif j != P + i:
                    field[i] -= A[i, j] * a_p * y
        total += field / (sum(float(v.norm()) for v in field) / G)
    return total


@pytest.mark.parametrize(("G", "P", "O"), [(2, 1, 0), (5, 8, 2), (16, 30, 3)])
def test_batched_drift_is_the_plain_formula_group_by_group(G: int, P: int, O: int) -> None:  # noqa: E741
    g = torch.Generator().manual_seed(G)
    generated, positives, others = (
        torch.randn(3, count, 6, generator=g, dtype=torch.float64) for count in (G, P, O)
    )
    V, _ = drift(generated, positives, others, TEMPERATURES)
    for group in range(3):
        expected = plain_drift(generated[group], positives[group], others[group])
        torch.testing.assert_close(V[group], expected, rtol=1e-9, atol=1e-9)


def test_loss_gradient_points_against_the_drift() -> None:
    g = torch.Generator().manual_seed(0)
    generated = torch.randn(2, 6, 4, generator=g).requires_grad_()
    positives, others = torch.randn(2, 9, 4, generator=g), torch.randn(2, 1, 4, generator=g)
    V, scale = drift(generated.detach(), positives, others, TEMPERATURES)
    (gradient,) = torch.autograd.grad(
        drift_loss(generated, positives, others, TEMPERATURES), generated
    )
    torch.testing.assert_close(gradient, -2 * V / scale / (2 * 6), rtol=1e-4, atol=1e-6)


def test_drift_does_not_depend_on_the_scale_of_the_features() -> None:
    g = torch.Generator().manual_seed(1)
    sets = [torch.randn(1, n, 5, generator=g, dtype=torch.float64) for n in (6, 10, 2)]
    small, _ = drift(*sets, TEMPERATURES)
    large, _ = drift(*(1000 * s for s in sets), TEMPERATURES)
    torch.testing.assert_close(small, large)


def test_following_the_drift_finds_every_mode_of_the_data() -> None:
    g = torch.Generator().manual_seed(2)
    centres = torch.tensor([[3.0, 0], [-3, 0], [0, 3], [0, -3]])
    x = torch.randn(1, 32, 2, generator=g) * 0.3
    for _ in range(300):
        positives = centres[torch.randint(4, (64,), generator=g)][None]
        V, scale = drift(x, positives + torch.randn(1, 64, 2, generator=g) * 0.1, x[:, :0], [0.2])
        x = x + 0.05 * scale * V
    nearest = torch.cdist(x[0], centres).min(dim=1)
    assert nearest.values.median() < 0.5
    assert torch.bincount(nearest.indices, minlength=4).min() >= 3


@pytest.mark.parametrize(("G", "gamma", "expected"), [(16, 0.0, 0), (17, 0.2, 4), (2, 0.5, 1)])
def test_others_make_their_share_of_the_negatives(G: int, gamma: float, expected: int) -> None:
    assert num_others(G, gamma) == expected
