"""A small made-up data set, to try training on: coloured shapes in folders, one per class."""

from __future__ import annotations

import random
import sys
from pathlib import Path

from PIL import Image, ImageDraw

SHAPES = ("circle", "cross", "square", "triangle")
SIDE = 32


def write_coloured_shapes(folder: str | Path, per_class: int = 200, seed: int = 0) -> Path:
    """Write ``FOLDER/CLASS/NNNN.png``, 32x32 RGB: a shape of any bright colour, place and size."""
    rng = random.Random(seed)
    for shape in SHAPES:
        target = Path(folder, shape)
        target.mkdir(parents=True, exist_ok=True)
        for i in range(per_class):
            _picture(shape, rng).save(target / f"{i:04d}.png")
    return Path(folder)


def _picture(shape: str, rng: random.Random) -> Image.Image:
    picture = Image.new("RGB", (SIDE, SIDE), (20, 20, 20))
    draw = ImageDraw.Draw(picture)
    colour = tuple(rng.randint(110, 255) for _ in range(3))
    r = rng.randint(6, 12)
    x, y = (rng.randint(r + 1, SIDE - r - 2) for _ in range(2))
    if shape == "circle":
        draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    elif shape == "square":
        draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)
    elif shape == "triangle":
        draw.polygon([(x - r, y + r), (x + r, y + r), (x, y - r)], fill=colour)
    else:
        draw.rectangle((x - r, y - r // 3, x + r, y + r // 3), fill=colour)
        draw.rectangle((x - r // 3, y - r, x + r // 3, y + r), fill=colour)
    return picture


if __name__ == "__main__":
    print(write_coloured_shapes(sys.argv[1]))
