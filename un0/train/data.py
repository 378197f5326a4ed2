"""Class-labelled images from IDX files, folders of images and the Hugging Face Hub."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from un0.errors import InputError

Split = Literal["train", "test"]

FASHION_LABELS = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
# IDX files name no classes: Fashion-MNIST is known by its first class ids
FASHION_START = {"train": (9, 0, 0, 3, 0, 2, 7, 2, 5, 5), "test": (9, 2, 1, 1, 6, 1, 4, 6, 5, 7)}
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp"})
HUB_PREFIX = "hub:"
TEST_EVERY = 10  # of a folder without its own split, every tenth picture is for testing


@dataclass(frozen=True)
class ImageSet:
    """Labelled images: ``images_NCHW`` uint8 (N, 3, S, S), ``class_ids_N`` int64, names by id."""

    images_NCHW: Tensor
    class_ids_N: Tensor
    labels: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.class_ids_N)

    def __getitem__(self, rows: Tensor | slice) -> ImageSet:
        return ImageSet(self.images_NCHW[rows], self.class_ids_N[rows], self.labels)

    def half(self, which: Literal["A", "B"]) -> ImageSet:
        """Every second image: A, from the first, is the loss CNN's; B is the evaluation's."""
        return self[slice(0 if which == "A" else 1, None, 2)]

    def digest(self) -> str:
        """Sixteen hex digits of the content; two equal sets have the same."""
        h = hashlib.sha256(repr((self.labels, tuple(self.images_NCHW.shape))).encode())
        h.update(self.images_NCHW.contiguous().numpy().data)
        h.update(self.class_ids_N.contiguous().numpy().data)
        return h.hexdigest()[:16]


def to_float(images_NCHW: Tensor) -> Tensor:
    """uint8 0..255 to float32 in [-1, 1]."""
    return images_NCHW.float() / 127.5 - 1


def load_images(source: str | Path, split: Split, image_size: int = 32) -> ImageSet:
    """The ``split`` of a data source at ``image_size`` (32 or 64), RGB.

    ``source``: a directory of IDX files or of class sub-folders with images, or
    ``hub:OWNER/NAME``. Raises InputError where it is none of these or its content is unusable.
    """
    if str(source).startswith(HUB_PREFIX):
        return _load_hub(str(source).removeprefix(HUB_PREFIX), split, image_size)
    root = Path(source).expanduser()
    if not root.is_dir():
        raise InputError(
            f"data {str(source)!r}: no such directory; give one with IDX files or one sub-folder "
            f"of images per class, or {HUB_PREFIX}OWNER/NAME for the Hugging Face Hub"
        )
    if any(root.glob("*idx3-ubyte*")):
        return _load_idx(root, split, image_size)
    return _load_folder(root, split, image_size)


# --- IDX ----------------------------------------------------------------------------------------


def _load_idx(root: Path, split: Split, image_size: int) -> ImageSet:
    prefix = "train" if split == "train" else "t10k"
    images = _read_idx(_find_idx(root, f"{prefix}-images*idx3-ubyte*"), dims=3)
    class_ids = _read_idx(_find_idx(root, f"{prefix}-labels*idx1-ubyte*"), dims=1)
    if len(images) != len(class_ids):
        raise InputError(f"data {root}: {len(images)} {split} images but {len(class_ids)} labels")
    fashion = tuple(class_ids[: len(FASHION_START[split])].tolist()) == FASHION_START[split]
    labels = FASHION_LABELS if fashion else tuple(map(str, range(int(class_ids.max()) + 1)))
    gray_N1HW = torch.from_numpy(images)[:, None]
    fitted = _pad_or_resize(gray_N1HW, image_size).expand(-1, 3, -1, -1).contiguous()
    return ImageSet(fitted, torch.from_numpy(class_ids).long(), labels)


def _find_idx(root: Path, pattern: str) -> Path:
    found = sorted(root.glob(pattern))
    if not found:
        raise InputError(f"data {root}: no file matches {pattern}; IDX sets come in pairs")
    return found[0]


def _read_idx(path: Path, dims: int) -> NDArray[np.uint8]:
    """An IDX file of unsigned bytes, gzipped or not. Format: LeCun's MNIST page."""
    raw = path.read_bytes()
    try:
        data = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError) as e:
        raise InputError(f"data {path}: broken gzip file ({e}); fetch it again") from e
    header = 4 + 4 * dims
    if data[:4] != bytes([0, 0, 8, dims]) or len(data) < header:
        raise InputError(f"data {path}: starts with {data[:4]!r}; not IDX bytes of {dims} axes")
    shape = tuple(int(v) for v in np.frombuffer(data[4:header], ">u4"))
    if len(data) - header != int(np.prod(shape)):
        raise InputError(f"data {path}: {len(data) - header} bytes for shape {shape}; truncated?")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def _pad_or_resize(images_NCHW: Tensor, size: int) -> Tensor:
    """Smaller images centred on black, larger ones scaled down to fit, then padded."""
    height, width = images_NCHW.shape[-2:]
    if max(height, width) > size:
        scale = size / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
        images_NCHW = torch.nn.functional.interpolate(
            images_NCHW.float(), (height, width), mode="bilinear", antialias=True
        )
        images_NCHW = images_NCHW.round().clamp(0, 255).to(torch.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    padding = (left, size - width - left, top, size - height - top)
    return torch.nn.functional.pad(images_NCHW, padding)


# --- image files --------------------------------------------------------------------------------


def _load_folder(root: Path, split: Split, image_size: int) -> ImageSet:
    own_split = (root / "train").is_dir() and (root / "test").is_dir()
    base = root / split if own_split else root
    folders = sorted(path for path in base.iterdir() if path.is_dir())
    labels = tuple(folder.name for folder in folders)
    files: list[tuple[Path, int]] = []
    for class_id, folder in enumerate(folders):
        members = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        if not members:
            raise InputError(
                f"data {folder}: no images in this class folder; add some or remove it"
            )
        for i, picture in enumerate(members):
            is_test = i % TEST_EVERY == TEST_EVERY - 1
            if own_split or is_test == (split == "test"):
                files.append((picture, class_id))
    if not files:
        raise InputError(
            f"data {base}: no {split} images; expected one sub-folder per class, each with at "
            f"least {TEST_EVERY} images ({', '.join(sorted(IMAGE_SUFFIXES))})"
        )
    images = np.stack([_read_picture(path, image_size) for path, _ in files])
    class_ids = torch.tensor([class_id for _, class_id in files])
    return ImageSet(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), class_ids, labels)


def _read_picture(path: Path, size: int) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            return fit_picture(picture, size)
    except (UnidentifiedImageError, OSError) as e:
        raise InputError(f"picture {path}: cannot be read ({e}); replace or remove it") from e


def fit_picture(picture: Image.Image, size: int) -> NDArray[np.uint8]:
    """RGB (size, size, 3): the whole picture scaled to fit, centred on black."""
    rgb = picture.convert("RGB")
    scale = size / max(rgb.size)
    width, height = (max(1, round(side * scale)) for side in rgb.size)
    if (width, height) != rgb.size:
        rgb = rgb.resize((width, height), Image.Resampling.LANCZOS)
    canvas = Image.new("RGB", (size, size))
    canvas.paste(rgb, ((size - width) // 2, (size - height) // 2))
    return np.asarray(canvas)


# --- Hugging Face Hub ---------------------------------------------------------------------------


def _load_hub(name: str, split: Split, image_size: int) -> ImageSet:
    try:
        from datasets import load_dataset
    except ImportError as e:
        raise InputError(
            f"data hub:{name}: needs the `datasets` package: pip install datasets"
        ) from e
    try:
        table = load_dataset(name, split=split)
    except Exception as e:
        # the library raises many unrelated types for "no network", "no such name" and "no split"
        raise InputError(
            f"data hub:{name}: the {split} split could not be loaded ({type(e).__name__}: {e}); "
            "check the name and the network"
        ) from e
    return from_table(table, f"hub:{name}", image_size)


def from_table(table: Any, origin: str, image_size: int) -> ImageSet:
    """An ImageSet from a ``datasets.Dataset`` with one image and one class-label column."""
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    image_column = next((n for n, kind in kinds.items() if kind == "Image"), None)
    label_column = next((n for n, kind in kinds.items() if kind == "ClassLabel"), None)
    if image_column is None or label_column is None:
        raise InputError(
            f"data {origin}: needs an Image and a ClassLabel column; it has "
            + ", ".join(f"{n} ({kind})" for n, kind in kinds.items())
        )
    images = np.stack([fit_picture(picture, image_size) for picture in table[image_column]])
    return ImageSet(
        torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(),
        torch.tensor(table[label_column]),
        tuple(table.features[label_column].names),
    )
