"""The training loop: generate, look, drift, step."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from un0.config import SEED_SIZE
from un0.decoder import Decoder, read_out
from un0.errors import InputError
from un0.model import Un0Model
from un0.train.features import Maps, View, groups
from un0.train.loss import drift_loss, num_others
from un0.train.positives import PositiveQueue
from un0.train.precision import autocast
from un0.train.recipe import Recipe, ViewName


@dataclass
class Views:
    """All views as one function of images, and how each view's maps are grouped."""

    by_name: dict[ViewName, View]

    def __call__(self, images_BCHW: Tensor) -> Maps:
        maps: Maps = {}
        for view in self.by_name.values():
            maps.update(view(images_BCHW))
        return maps


class Trainer:
    """State of one run. Every random draw is keyed by (seed, step), so nothing else is kept."""

    def __init__(
        self, model: Un0Model, views: Views, queue: PositiveQueue, recipe: Recipe, bf16: bool
    ) -> None:
        self.model = model
        self.views = views
        self.queue = queue
        self.recipe = recipe
        self.bf16 = bf16
        self.device = model.K.device
        self.step = 0
        self.average = copy.deepcopy(model).requires_grad_(False)
        o = recipe.optim
        self.optimizer = torch.optim.AdamW(
            model.parameters(), lr=o.lr, betas=(o.betas[0], o.betas[1]), weight_decay=o.weight_decay
        )

    def train_step(self) -> float:
        """One optimiser step; returns the loss summed over views."""
        g = self._generator()
        class_ids_K = self._pick_classes(g)
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.optim.lr * self.lr_factor()
        images = self._generate(class_ids_K, g)
        gradient, loss = self._image_gradient(images, class_ids_K, g)
        if not math.isfinite(loss):
            raise InputError(
                f"training diverged at step {self.step} (loss {loss}); lower optim.lr, which is "
                f"{self.recipe.optim.lr}, and begin again or resume from the last checkpoint"
            )
        self.optimizer.zero_grad(set_to_none=True)
        images.backward(gradient)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.optim.clip)
        self.optimizer.step()
        self.queue.renew(g)
        self.step += 1
        self._update_average()
        return loss

    def lr_factor(self) -> float:
        """Share of the peak learning rate: linear warm-up, hold, then decay to zero."""
        o = self.recipe.optim
        warm = min(1.0, (self.step + 1) / o.warmup_steps)
        decay_steps = o.decay * o.steps
        done = max(0.0, (self.step - (o.steps - decay_steps)) / decay_steps)
        left = 1 - done if o.decay_shape == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return warm * max(0.0, left)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.recipe.seed * 1_000_003 + self.step)

    def _pick_classes(self, g: torch.Generator) -> Tensor:
        order = torch.randperm(self.model.config.num_classes, generator=g)
        return order[: self.recipe.loss.classes_per_step]

    def _generate(self, class_ids_K: Tensor, g: torch.Generator) -> Tensor:
        """Images (K * G, 3, H, W), class by class, with their graph."""
        c = self.model.config
        class_ids = class_ids_K.repeat_interleave(self.recipe.loss.generated_per_class)
        phases = (torch.rand(len(class_ids), c.n + c.n_cond, generator=g) * 2 - 1) * math.pi
        dropped = torch.rand(len(class_ids), generator=g) < c.class_dropout_prob
        final = self.model.integrate(
            phases.to(self.device),
            class_ids.to(self.device),
            dropped.to(self.device) if c.class_dropout_prob else None,
        )
        return decode(self.model, final, self.bf16)

    def _image_gradient(
        self, images: Tensor, class_ids_K: Tensor, g: torch.Generator
    ) -> tuple[Tensor, float]:
        """The loss's gradient at the images. Each view has its share of it, whatever its scale."""
        spec = self.recipe.loss
        positives = self.queue.draw(class_ids_K, spec.positives_per_class, g)
        others_count = num_others(spec.generated_per_class, spec.gamma)
        others = self.queue.draw_others(class_ids_K, others_count, g)
        total = torch.zeros_like(images)
        loss_sum = 0.0
        for name, view in self.views.by_name.items():
            leaf = images.detach().requires_grad_()
            with autocast(self.bf16, self.device):
                maps = view(leaf)
            per_class = {
                key: value.float().unflatten(0, (len(class_ids_K), -1))
                for key, value in maps.items()
            }
            loss = self._view_loss(view, per_class, positives, others)
            (gradient,) = torch.autograd.grad(loss, leaf)
            share = spec.views[name] / sum(spec.views.values())
            total += share * gradient / gradient.norm().clamp(min=1e-12)
            loss_sum += loss.item()
        return total, loss_sum

    def _view_loss(self, view: View, generated: Maps, positives: Maps, others: Maps) -> Tensor:
        """The drift loss of one view, summed over its maps. Maps: (K, images, locations, C)."""
        loss = torch.zeros((), device=self.device)
        for key in generated:
            sets = (generated[key], positives[key], others[key])
            grouped = (groups(maps, key in view.by_location) for maps in sets)
            for g, p, o in zip(*grouped, strict=True):
                loss = loss + drift_loss(g, p, o, self.recipe.loss.temperatures)
        return loss

    @torch.no_grad()
    def _update_average(self) -> None:
        decay = min(self.recipe.optim.ema_decay, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.parameters(), self.model.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)

    def save(self, path: Path) -> None:
        """Write the whole state, replacing the file in one move."""
        state = {
            "recipe": self.recipe.hash(),
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "queue_rows": self.queue.rows,
        }
        partial = path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(path)

    def load(self, path: Path) -> None:
        """Go on from ``save``'s file. Raises InputError if another recipe wrote it."""
        state: dict[str, Any] = torch.load(path, map_location=self.device, weights_only=True)
        if state["recipe"] != self.recipe.hash():
            raise InputError(
                f"checkpoint {path} was written by recipe {state['recipe']}, not "
                f"{self.recipe.hash()}; resume with the recipe it began with, or remove the file"
            )
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.queue.renews:
            self.queue.rows = state["queue_rows"].cpu()
            self.queue.fill()


def decode(model: Un0Model, final_phases: Tensor, bf16: bool) -> Tensor:
    """``Un0Model.decode`` with its blocks in bf16. The last layer stays in fp32: it is what the
    eye sees, and its three channels make bf16's weight gradient 20 times slower on a CPU."""
    c = model.config
    decoder: Decoder = model.decoder
    x = read_out(final_phases[:, : c.n], c.relativization, c.encoding)
    x = x.reshape(len(x), -1, SEED_SIZE, SEED_SIZE).contiguous(memory_format=torch.channels_last)
    with autocast(bf16, final_phases.device):
        for block in decoder.blocks:
            x = block(x)
    x = x.float()
    return torch.tanh(F.conv2d(x, decoder.out.weight, decoder.out.bias, padding=1))
