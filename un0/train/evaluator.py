"""The network that judges: another architecture than the loss's, trained on the other half."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from un0.train.classifier import train_classifier
from un0.train.data import ImageSet
from un0.train.precision import channels_last, use_bf16

logger = logging.getLogger(__name__)
VERSION = 1  # of the architecture and its training: scores of two versions do not compare
EPOCHS = 10


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.a = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.b = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_a, self.norm_b = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = F.relu(self.norm_a(self.a(x_BCHW)))
        return F.relu(x_BCHW + self.norm_b(self.b(inner)))


class EvaluationCNN(nn.Module):
    """A small residual classifier on RGB; its 128 penultimate activations are the features."""

    width = 128

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(3, 32, 5, stride=2, padding=2, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            _Residual(32),
            nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            _Residual(64),
            nn.AdaptiveMaxPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * 64, self.width),
            nn.ReLU(),
        )
        self.head = nn.Linear(self.width, num_classes)

    def features(self, images_BCHW: Tensor) -> Tensor:
        """(B, 128)."""
        out: Tensor = self.trunk(images_BCHW)
        return out

    def logits(self, images_BCHW: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(images_BCHW))
        return out


def evaluation_cnn(train: ImageSet, cache_dir: Path, mirror: bool = False) -> EvaluationCNN:
    """The judge of this data: read from ``cache_dir``, or trained (minutes) and kept there."""
    data = train.half("B")
    path = cache_dir / f"evaluation-cnn-v{VERSION}-{data.digest()}.pt"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = EvaluationCNN(len(train.labels))
    channels_last(net)
    if path.is_file():
        net.load_state_dict(torch.load(path, weights_only=True))
        return net.eval().requires_grad_(False)
    bf16 = use_bf16("auto", torch.device("cpu"))
    train_classifier(net, net.logits, data, epochs=EPOCHS, seed=0, mirror=mirror, bf16=bf16)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), path)
    except (OSError, RuntimeError) as error:  # PyTorch raises either
        logger.warning("the evaluation CNN cannot be kept for next time: %s", error)
    return net
