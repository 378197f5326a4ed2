"""The positives queue: features of real images, kept per class and renewed a chunk a step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from un0.errors import InputError
from un0.train.data import ImageSet, to_float
from un0.train.features import Maps

CHUNK = 200  # images whose features are computed together; fixed, so that resuming repeats them


class PositiveQueue:
    """Feature maps of ``size`` reals of every class. Where a class has no more, all of them stay.

    ``rows`` (classes, size): which images are held now; with ``state`` the whole of its state.
    """

    def __init__(
        self, data: ImageSet, view: Callable[[Tensor], Maps], size: int, device: torch.device
    ) -> None:
        self.data, self.view, self.device = data, view, device
        self.by_class = [
            torch.nonzero(data.class_ids_N == c).squeeze(1) for c in range(len(data.labels))
        ]
        smallest = min(len(rows) for rows in self.by_class)
        if smallest == 0:
            empty = [n for n, rows in zip(data.labels, self.by_class, strict=True) if not len(rows)]
            raise InputError(f"training data: no image of class {', '.join(empty)}")
        self.size = min(size, smallest)
        self.renews = self.size < max(len(rows) for rows in self.by_class)
        self.rows = torch.stack([rows[: self.size] for rows in self.by_class])
        self.maps: Maps = {}
        self.fill()

    @torch.no_grad()
    def fill(self) -> None:
        """Compute the features of every held image."""
        flat = self.rows.flatten()
        parts = [self._features(flat[i : i + CHUNK]) for i in range(0, len(flat), CHUNK)]
        self.maps = {
            name: torch.cat([part[name] for part in parts]).unflatten(0, self.rows.shape)
            for name in parts[0]
        }

    def _features(self, rows: Tensor) -> Maps:
        padded = torch.cat([rows, rows[:1].expand(CHUNK - len(rows))])
        maps = self.view(to_float(self.data.images_NCHW[padded]).to(self.device))
        return {name: features[: len(rows)] for name, features in maps.items()}

    @torch.no_grad()
    def renew(self, g: torch.Generator) -> None:
        """Replace up to a chunk of one class's images by others, where not all are held."""
        if not self.renews:
            return
        c = int(torch.randint(len(self.by_class), (1,), generator=g))
        count = min(CHUNK, self.size)
        pool = self.by_class[c]
        fresh = pool[torch.randint(len(pool), (count,), generator=g)]
        slots = torch.randperm(self.size, generator=g)[:count]
        self.rows[c, slots] = fresh
        for name, features in self._features(fresh).items():
            self.maps[name][c, slots.to(self.device)] = features

    def draw(self, class_ids_K: Tensor, count: int, g: torch.Generator) -> Maps:
        """For each class ``count`` held images: maps (K, count, locations, channels)."""
        scores = torch.rand(len(class_ids_K), self.size, generator=g)
        picks = scores.topk(min(count, self.size), dim=1).indices
        at = (class_ids_K[:, None].to(self.device), picks.to(self.device))
        return {name: features[at] for name, features in self.maps.items()}

    def draw_others(self, class_ids_K: Tensor, count: int, g: torch.Generator) -> Maps:
        """For each class ``count`` held images of other classes, in the shape ``draw`` has."""
        num_classes = len(self.by_class)
        if num_classes == 1:
            count = 0
        away = torch.randint(1, max(num_classes, 2), (len(class_ids_K), count), generator=g)
        other = (class_ids_K[:, None] + away) % num_classes
        picks = torch.randint(self.size, other.shape, generator=g)
        at = (other.to(self.device), picks.to(self.device))
        return {name: features[at] for name, features in self.maps.items()}
