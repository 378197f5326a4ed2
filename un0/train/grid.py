"""A contact sheet of samples: one row per class, the same noise at every call."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image

from un0.model import Un0Model

MAX_ROWS = 20


@torch.no_grad()
def sample_grid(model: Un0Model, path: Path, columns: int = 10, zoom: int = 2) -> None:
    """Write a PNG of ``columns`` samples of each class (the first 20 classes)."""
    c = model.config
    device = model.K.device
    rows = min(c.num_classes, MAX_ROWS)
    g = torch.Generator().manual_seed(0)
    phases = (torch.rand(rows * columns, c.n + c.n_cond, generator=g) * 2 - 1) * math.pi
    class_ids = torch.arange(rows).repeat_interleave(columns)
    images = model(phases.to(device), class_ids.to(device)).cpu()
    levels = ((images + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    size = c.image_size
    sheet = levels.reshape(rows, columns, 3, size, size).permute(0, 3, 1, 4, 2)
    picture = Image.fromarray(sheet.reshape(rows * size, columns * size, 3).numpy())
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(
        path
    )
