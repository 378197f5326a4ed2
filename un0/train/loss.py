"""The class-conditional drift loss ("Generative Modeling via Drifting"), batched over groups.

A group is one class seen through one feature view (or one location of one). Shapes: L groups,
G generated samples, P positives (reals of the class), O reals of other classes, C features.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

TINY = 1e-30  # keeps 0 / 0 at zero where all features are equal


def num_others(num_generated: int, gamma: float) -> int:
    """Reals of other classes that make a share ``gamma`` of each sample's negatives."""
    return round(gamma / (1 - gamma) * (num_generated - 1))


def drift(
    generated_LGC: Tensor,
    positives_LPC: Tensor,
    others_LOC: Tensor,
    temperatures: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """The drift V (L, G, C) in units of each group's mean distance, and those means (L, 1, 1).

    Every sample is drawn to the positives and pushed off the negatives: the other generated
    samples of its group and ``others``. Affinities are the geometric mean of a softmax over
    partners and a softmax over samples, so that each positive also picks its samples: that is
    what keeps all modes. V is the sum over temperatures of fields of unit mean length.
    """
    num_generated, num_positives = generated_LGC.shape[1], positives_LPC.shape[1]
    partners = torch.cat([positives_LPC, generated_LGC, others_LOC], dim=1)
    distance = torch.cdist(generated_LGC, partners, compute_mode="use_mm_for_euclid_dist")
    rows = torch.arange(num_generated, device=distance.device)
    own = torch.zeros(distance.shape[1:], dtype=torch.bool, device=distance.device)
    own[rows, num_positives + rows] = True
    pairs = num_generated * (partners.shape[1] - 1)
    scale = distance.masked_fill(own, 0).sum(dim=(1, 2), keepdim=True) / pairs
    scale = scale.clamp(min=TINY)

    total = torch.zeros_like(generated_LGC)
    for temperature in temperatures:
        logits = (-distance / (scale * temperature)).masked_fill(own, -torch.inf)
        affinity = (torch.softmax(logits, dim=2) * torch.softmax(logits, dim=1)).sqrt()
        a_p, a_n = affinity[..., :num_positives], affinity[..., num_positives:]
        weights = torch.cat(
            [a_p * a_n.sum(dim=2, keepdim=True), -a_n * a_p.sum(dim=2, keepdim=True)], dim=2
        )
        field = weights @ partners
        length = field.norm(dim=2, keepdim=True).mean(dim=1, keepdim=True)
        total = total + field / length.clamp(min=TINY)
    return total, scale


def drift_loss(
    generated_LGC: Tensor,
    positives_LPC: Tensor,
    others_LOC: Tensor,
    temperatures: Sequence[float],
) -> Tensor:
    """Mean over groups and samples of |g - stop_grad(g + V)|^2, lengths in mean distances."""
    with torch.no_grad():
        V, scale = drift(generated_LGC, positives_LPC, others_LOC, temperatures)
        scaled = generated_LGC / scale
        target = scaled + V
    return (generated_LGC / scale - target).square().sum(dim=2).mean()
