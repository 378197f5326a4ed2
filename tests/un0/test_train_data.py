"""Reading of training images: IDX files, folders of images, tables of the `datasets` library."""

from __future__ import annotations

import gzip
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from un0.errors import InputError
from un0.train.data import from_table, load_images, to_float


def write_idx(path: Path, array: np.ndarray, *, compress: bool) -> None:
    header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
    raw = header + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(raw) if compress else raw)


def write_idx_set(folder: Path, *, compress: bool = True, size: int = 28) -> np.ndarray:
    rng = np.random.default_rng(0)
    suffix = ".gz" if compress else ""
    for prefix, count in (("train", 12), ("t10k", 6)):
        images = rng.integers(0, 256, (count, size, size))
        write_idx(folder / f"{prefix}-images-idx3-ubyte{suffix}", images, compress=compress)
        labels = np.arange(count) % 3
        write_idx(folder / f"{prefix}-labels-idx1-ubyte{suffix}", labels, compress=compress)
    return images


@pytest.mark.parametrize("compress", [True, False])
def test_idx_files_are_padded_to_the_middle_of_rgb(tmp_path: Path, compress: bool) -> None:
    pixels = write_idx_set(tmp_path, compress=compress)
    found = load_images(tmp_path, "test")
    assert found.images_NCHW.shape == (6, 3, 32, 32)
    assert found.labels == ("0", "1", "2")
    assert found.class_ids_N.tolist() == [0, 1, 2, 0, 1, 2]
    for channel in range(3):
        inner = found.images_NCHW[:, channel, 2:30, 2:30]
        assert torch.equal(inner, torch.from_numpy(pixels).byte())
    assert int(found.images_NCHW.sum()) == 3 * int(pixels.sum())  # all around is black
    floats = to_float(found.images_NCHW)
    assert floats.min() == -1
    assert floats.max() <= 1


def test_debian_fashion_mnist_has_its_class_names() -> None:
    source = Path("/usr/share/datasets/fashion-mnist")
    if not source.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    found = load_images(source, "test")
    assert len(found) == 10_000
    assert found.labels[found.class_ids_N[0]] == "Ankle boot"
    assert len(found.half("A")) + len(found.half("B")) == 10_000
    assert found.half("A").digest() != found.half("B").digest()


def test_a_truncated_idx_file_is_named(tmp_path: Path) -> None:
    write_idx_set(tmp_path, compress=False)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match=r"train-images-idx3-ubyte.*truncated"):
        load_images(tmp_path, "train")


def test_a_missing_partner_is_named(tmp_path: Path) -> None:
    write_idx_set(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(InputError, match="t10k-labels"):
        load_images(tmp_path, "test")


def write_pictures(folder: Path, label: str, count: int, size: tuple[int, int]) -> None:
    (folder / label).mkdir(parents=True)
    for i in range(count):
        Image.new("RGB", size, (200, i, 0)).save(folder / label / f"{i:02d}.png")


@pytest.mark.parametrize("image_size", [32, 64])
def test_folders_are_classes_and_pictures_keep_their_proportions(
    tmp_path: Path, image_size: int
) -> None:
    write_pictures(tmp_path, "wide", 20, (100, 50))
    write_pictures(tmp_path, "tall", 10, (10, 20))
    train, test = (load_images(tmp_path, split, image_size) for split in ("train", "test"))
    assert train.labels == test.labels == ("tall", "wide")
    assert (len(train), len(test)) == (27, 3)
    for image, is_wide in zip(train.images_NCHW, train.class_ids_N, strict=True):
        filled = image[0] > 100
        wide, tall = int(filled.any(dim=0).sum()), int(filled.any(dim=1).sum())
        assert (wide, tall) == (
            (image_size, image_size // 2) if is_wide else (image_size // 2, image_size)
        )


def test_no_picture_is_in_both_splits(tmp_path: Path) -> None:
    write_pictures(tmp_path, "one", 30, (32, 32))
    train, test = (load_images(tmp_path, split).images_NCHW for split in ("train", "test"))
    greens = [set(images[:, 1, 0, 0].tolist()) for images in (train, test)]
    assert not greens[0] & greens[1]
    assert len(greens[0] | greens[1]) == 30


def test_a_folders_own_split_is_kept(tmp_path: Path) -> None:
    write_pictures(tmp_path / "train", "one", 5, (32, 32))
    write_pictures(tmp_path / "test", "one", 2, (32, 32))
    assert len(load_images(tmp_path, "train")) == 5
    assert len(load_images(tmp_path, "test")) == 2


def test_a_broken_picture_and_an_empty_class_are_named(tmp_path: Path) -> None:
    write_pictures(tmp_path, "one", 2, (32, 32))
    (tmp_path / "one" / "bad.png").write_bytes(b"not a picture")
    with pytest.raises(InputError, match=r"bad\.png"):
        load_images(tmp_path, "train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        load_images(tmp_path, "train")


def test_a_missing_directory_says_what_is_accepted(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="hub:OWNER/NAME"):
        load_images(tmp_path / "nowhere", "train")


def test_the_datasets_library_reads_what_the_hub_would_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "data"
    write_pictures(folder, "cat", 3, (32, 32))
    write_pictures(folder, "dog", 2, (32, 32))
    found = load_images(f"hub:{folder}", "train")
    assert found.labels == ("cat", "dog")
    assert sorted(found.class_ids_N.tolist()) == [0, 0, 0, 1, 1]
    assert found.images_NCHW.shape == (5, 3, 32, 32)
    assert (found.images_NCHW[:, 0] == 200).all()
    with pytest.raises(InputError, match="the test split could not be loaded"):
        load_images(f"hub:{folder}", "test")


def test_a_table_without_labels_is_refused() -> None:
    table = datasets.Dataset.from_dict({"text": ["a"]})
    with pytest.raises(InputError, match="ClassLabel"):
        from_table(table, "hub:some/name", 32)
