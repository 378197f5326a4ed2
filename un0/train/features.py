"""What the drift loss looks at: pixels at several scales, and feature maps of a network.

A view turns images (B, 3, H, W) into named maps (B, locations, channels). ``groups`` then says
how a map is compared: whole (one vector per image) or location by location.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from un0.errors import InputError

Maps = dict[str, Tensor]


class View(Protocol):
    """Differentiable; ``by_location`` names the maps that are compared location by location too."""

    by_location: frozenset[str]

    def __call__(self, images_BCHW: Tensor) -> Maps: ...


class PixelView:
    """Pixels at full, half and quarter resolution, each a single vector."""

    by_location: frozenset[str] = frozenset()

    def __init__(self, gray: bool) -> None:
        self.gray = gray

    def __call__(self, images_BCHW: Tensor) -> Maps:
        x = images_BCHW.mean(dim=1, keepdim=True) if self.gray else images_BCHW
        scales = {"full": x, "half": F.avg_pool2d(x, 2), "quarter": F.avg_pool2d(x, 4)}
        return {f"pixels/{name}": scale.flatten(1)[:, None] for name, scale in scales.items()}


class LossCNN(nn.Module):
    """A small classifier whose feature maps stand in for a large pretrained network's."""

    by_location = frozenset({"cnn/mid"})

    def __init__(self, num_classes: int, gray: bool) -> None:
        super().__init__()
        self.gray = gray
        widths = (1 if gray else 3, 32, 48, 64, 96)
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(c_in, c_out, 3, padding=1, bias=False),
                nn.BatchNorm2d(c_out),
                nn.LeakyReLU(0.1),
                nn.AvgPool2d(2),
            )
            for c_in, c_out in pairwise(widths)
        )
        self.head = nn.Linear(4 * widths[-1], num_classes)

    def stage_maps(self, images_BCHW: Tensor) -> list[Tensor]:
        x = images_BCHW.mean(dim=1, keepdim=True) if self.gray else images_BCHW
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def logits(self, images_BCHW: Tensor) -> Tensor:
        last = F.adaptive_avg_pool2d(self.stage_maps(images_BCHW)[-1], 2)
        out: Tensor = self.head(last.flatten(1))
        return out

    def forward(self, images_BCHW: Tensor) -> Maps:
        _, _, mid, last = self.stage_maps(images_BCHW)
        mid, last = F.adaptive_avg_pool2d(mid, 4), F.adaptive_avg_pool2d(last, 2)
        return {
            "cnn/mid": mid.flatten(2).transpose(1, 2).float(),
            "cnn/last": last.flatten(2).transpose(1, 2).float(),
            "cnn/mean": last.mean(dim=(2, 3))[:, None].float(),
        }


class DinoView:
    """DINOv2-S/14 through torch.hub: class token and pooled patch tokens. Needs a network once."""

    by_location = frozenset({"dino/patches"})

    def __init__(self, device: torch.device) -> None:
        try:
            net = torch.hub.load("facebookresearch/dinov2", "dinov2_vits14", trust_repo=True)
        except Exception as e:
            # torch.hub lets urllib, ssl, zip and import errors through as they are
            raise InputError(
                f"view dinov2: the network could not be fetched ({type(e).__name__}: {e}); train "
                "with the cnn view, or run once with a network so that torch.hub caches it"
            ) from e
        self.net = net.to(device).eval().requires_grad_(False)
        self.mean = torch.tensor([0.485, 0.456, 0.406], device=device).view(1, 3, 1, 1)
        self.std = torch.tensor([0.229, 0.224, 0.225], device=device).view(1, 3, 1, 1)

    def __call__(self, images_BCHW: Tensor) -> Maps:
        x = F.interpolate((images_BCHW + 1) / 2, (112, 112), mode="bicubic", antialias=True)
        tokens = self.net.forward_features((x - self.mean) / self.std)
        patches = tokens["x_norm_patchtokens"].transpose(1, 2).unflatten(2, (8, 8))
        pooled = F.adaptive_avg_pool2d(patches, 4).flatten(2).transpose(1, 2)
        return {
            "dino/class": tokens["x_norm_clstoken"][:, None].float(),
            "dino/patches": pooled.float(),
        }


def groups(map_XLC: Tensor, by_location: bool) -> list[Tensor]:
    """(K, B, locations, channels) as groups (K * locations, B, channels); the whole map first."""
    whole = map_XLC.flatten(2)
    if not by_location:
        return [whole]
    return [whole, map_XLC.transpose(1, 2).flatten(0, 1)]
