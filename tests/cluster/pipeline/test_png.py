"""Our PNG files as other programs read them."""

from __future__ import annotations

import io
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from cluster.pipeline.encode import encode_batch
from tests.support.effort import examples

Images = NDArray[np.uint8]
SIDES = [(1, 1), (1, 2), (2, 1), (1, 700), (700, 1), (7, 13), (32, 32), (33, 31), (64, 64)]
LARGE = [(1024, 1024), (3, 22_000), (30_000, 2)]
BLOCK = 65_535  # bytes of rows in one block of the stream, at most

BATCHES = hnp.arrays(
    np.uint8, st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.just(3))
)


def pictures(kind: str, height: int, width: int, rng: np.random.Generator) -> Images:
    """(H, W, 3) of one kind."""
    shape = (height, width, 3)
    y, x = np.mgrid[:height, :width]
    if kind == "flat":
        made = np.broadcast_to(rng.integers(0, 256, 3), shape)
    elif kind == "noise":
        made = rng.integers(0, 256, shape)
    elif kind == "grey noise":
        made = np.broadcast_to(rng.integers(0, 256, (height, width, 1)), shape)
    elif kind == "gradient":
        made = np.stack([3 * x, 5 * y, x * y], axis=-1) % 256
    elif kind == "few colours":
        made = rng.integers(0, 256, (4, 3))[rng.integers(0, 4, (height, width))]
    elif kind == "mostly black":
        made = np.where(rng.random((height, width, 1)) < 0.9, 0, rng.integers(0, 256, shape))
    elif kind == "tiled":
        tile = rng.integers(0, 256, (min(9, height), min(11, width), 3))
        made = np.tile(tile, (height // len(tile) + 1, width // tile.shape[1] + 1, 1))
        made = made[:height, :width]
    else:  # smooth, with some noise
        plane = 128 + 90 * np.sin(x / 9)[..., None] * np.cos(y / 7)[..., None]
        made = np.clip(plane + rng.normal(0, 3, shape), 0, 255)
    return made.astype(np.uint8)


KINDS = [
    *("flat", "noise", "grey noise", "gradient"),
    *("few colours", "mostly black", "tiled", "smooth"),
]
SEVERAL = [(160, 150), *(pytest.param(side, marks=pytest.mark.slow) for side in LARGE)]


def by_pillow(data: bytes) -> Any:
    image = Image.open(io.BytesIO(data))
    image.load()  # checks the checksums
    assert (image.format, image.mode) == ("PNG", "RGB")
    return np.asarray(image)


def by_opencv(data: bytes) -> Any:
    cv2 = pytest.importorskip("cv2")
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)[..., ::-1]


def by_libpng(data: bytes) -> Any:
    return pytest.importorskip("imagecodecs").png_decode(data)


def by_spng(data: bytes) -> Any:
    return pytest.importorskip("imagecodecs").spng_decode(data)


def files_of(batch: Images) -> list[bytes]:
    encoded = encode_batch(batch, "png")
    assert encoded.data.flags.c_contiguous
    assert encoded.starts[0] == 0
    assert encoded.starts[-1] == len(encoded.data)
    return encoded.files()


@settings(deadline=None, max_examples=examples(500))
@given(BATCHES)
def test_pillow_reads_back_every_pixel(batch: Images) -> None:
    files = files_of(batch)
    assert len(files) == len(batch)
    for data, picture in zip(files, batch, strict=True):
        assert np.array_equal(by_pillow(data), picture)


@pytest.mark.parametrize("decode", [by_pillow, by_opencv, by_libpng, by_spng])
@settings(deadline=None, max_examples=examples(400))
@given(
    kind=st.sampled_from(KINDS),
    height=st.integers(1, 90),
    width=st.integers(1, 90),
    seed=st.integers(0, 2**32),
)
def test_every_decoder_reads_back_every_kind_of_image(
    decode: Any, kind: str, height: int, width: int, seed: int
) -> None:
    picture = pictures(kind, height, width, np.random.default_rng(seed))
    assert np.array_equal(decode(files_of(picture[None])[0]), picture)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", SEVERAL)
def test_images_of_several_blocks(kind: str, side: tuple[int, int]) -> None:
    assert side[0] * (1 + 3 * side[1]) > BLOCK
    picture = pictures(kind, *side, np.random.default_rng(1))
    data = files_of(picture[None])[0]
    for decode in (by_pillow, by_opencv, by_libpng):
        assert np.array_equal(decode(data), picture)


def test_repetitions_farther_back_than_the_format_reaches() -> None:
    rng = np.random.default_rng(3)
    strip = pictures("noise", 64, 170, rng)  # 32,704 bytes of rows: just within reach
    for height in (64, 65, 66):  # and beyond it
        part = pictures("noise", height, 170, rng)
        picture = np.concatenate([part, strip, part, strip])
        assert np.array_equal(by_pillow(files_of(picture[None])[0]), picture)


@pytest.mark.skipif(shutil.which("pngcheck") is None, reason="needs pngcheck, of Debian")
def test_pngcheck_finds_no_fault(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    paths = []
    for number, kind in enumerate(KINDS):
        for height, width in [*SIDES, (150, 160)]:
            path = tmp_path / f"{number}-{height}-{width}.png"
            path.write_bytes(files_of(pictures(kind, height, width, rng)[None])[0])
            paths.append(path)
    found = subprocess.run(["pngcheck", "-q", *paths], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("side", [(32, 32), (5, 3), (90, 300)])
def test_a_file_depends_on_its_own_image_only(side: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    batch = np.stack([pictures(kind, *side, rng) for kind in KINDS])
    together = files_of(batch)
    assert [files_of(picture[None])[0] for picture in batch] == together
    assert files_of(batch[::-1]) == together[::-1]
    assert files_of(batch[1:3]) == together[1:3]
    assert files_of(batch[:, ::2, ::2]) == files_of(batch[:, ::2, ::2].copy())


def test_threads_do_not_disturb_each_other() -> None:
    rng = np.random.default_rng(4)
    batches = [np.stack([pictures(kind, 24, 24, rng) for kind in KINDS]) for _ in range(16)]
    alone = [files_of(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(files_of, batches)) == alone


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("noise", 1.02),
        ("grey noise", 0.8),
        ("flat", 0.1),
        ("few colours", 0.3),
        ("gradient", 0.1),
        ("smooth", 0.8),
    ],
)
def test_files_are_of_the_size_of_what_they_say(kind: str, most: float) -> None:
    """As a part of the pixels, and but for what every PNG has."""
    picture = pictures(kind, 64, 64, np.random.default_rng(5))
    assert len(files_of(picture[None])[0]) - 57 - 2 - 4 <= most * picture.nbytes + 64


@pytest.mark.parametrize("shape", [(2, 0, 3, 3), (1, 4, 0, 3)])
def test_images_without_pixels_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="PNG takes 1 x 1"):
        encode_batch(np.zeros(shape, np.uint8), "png")
