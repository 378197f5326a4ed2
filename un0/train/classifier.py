"""Training of the two small classifiers: the loss's and the evaluation's."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from un0.train.data import ImageSet, to_float
from un0.train.precision import autocast

MIN_STEPS = 300  # however few the images


def train_classifier(
    net: nn.Module,
    logits: Callable[[Tensor], Tensor],
    data: ImageSet,
    epochs: int,
    seed: int,
    mirror: bool,
    bf16: bool,
    peak_lr: float = 3e-3,
) -> None:
    """Fit in place with cross-entropy, a one-cycle cosine and shifts of each image."""
    device = next(net.parameters()).device
    g = torch.Generator().manual_seed(seed)
    batch_size = min(128, max(16, len(data) // 8), len(data))
    steps_per_epoch = len(data) // batch_size
    steps = max(epochs * steps_per_epoch, MIN_STEPS)
    optimizer = torch.optim.AdamW(net.parameters(), lr=peak_lr, weight_decay=0.02)
    net.train().requires_grad_(True)
    for step in range(steps):
        if step % steps_per_epoch == 0:
            order = torch.randperm(len(data), generator=g)
        for group in optimizer.param_groups:
            group["lr"] = peak_lr * _one_cycle(step / steps)
        at = step % steps_per_epoch * batch_size
        batch = data[order[at : at + batch_size]]
        images = to_float(_shift(batch.images_NCHW, g, mirror)).to(device)
        with autocast(bf16, device):
            out = logits(images)
        loss = F.cross_entropy(out.float(), batch.class_ids_N.to(device), label_smoothing=0.05)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    net.eval().requires_grad_(False)


def _one_cycle(done: float) -> float:
    return min(done / 0.15, 1.0) * 0.5 * (1 + math.cos(math.pi * done))


def _shift(images_NCHW: Tensor, g: torch.Generator, mirror: bool) -> Tensor:
    """Each image moved by up to two pixels each way over black, perhaps mirrored."""
    count, channels, size, _ = images_NCHW.shape
    padded = F.pad(images_NCHW, (2, 2, 2, 2))
    offset = torch.randint(0, 5, (2, count, 1), generator=g) + torch.arange(size)
    rows, columns = offset
    if mirror:
        flip = torch.rand(count, 1, generator=g) < 0.5
        columns = torch.where(flip, columns.flip(1), columns)
    image = torch.arange(count)[:, None, None]
    moved = padded[image, :, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2).reshape(count, channels, size, size)


@torch.no_grad()
def accuracy(logits: Callable[[Tensor], Tensor], data: ImageSet, device: torch.device) -> float:
    """Share of the images given their own class."""
    right = 0
    for start in range(0, len(data), 500):
        batch = data[slice(start, start + 500)]
        guess = logits(to_float(batch.images_NCHW).to(device)).argmax(dim=1).cpu()
        right += int((guess == batch.class_ids_N).sum())
    return right / len(data)
