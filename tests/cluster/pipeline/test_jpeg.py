"""Our JPEG files: those of libjpeg-turbo, byte for byte."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image
from simplejpeg import decode_jpeg, encode_jpeg

from cluster.pipeline.encode import encode_batch
from tests.support.effort import examples

Images = NDArray[np.uint8]
SIDES = [(1, 1), (1, 9), (9, 1), (7, 13), (8, 8), (28, 28), (32, 32), (33, 31), (64, 64), (3, 700)]
BATCHES = hnp.arrays(
    np.uint8, st.tuples(st.integers(0, 3), st.integers(1, 40), st.integers(1, 40), st.just(3))
)


def expected(batch: Images) -> list[bytes]:
    return [
        encode_jpeg(np.ascontiguousarray(picture), quality=95, colorsubsampling="444")
        for picture in batch
    ]


def pictures(kind: str, height: int, width: int, rng: np.random.Generator) -> Images:
    """(4, H, W, 3) of one kind."""
    shape = (4, height, width, 3)
    y, x = np.mgrid[:height, :width]
    if kind == "flat":
        return np.broadcast_to(rng.integers(0, 256, (4, 1, 1, 3), np.uint8), shape)
    if kind == "noise":
        return rng.integers(0, 256, shape, np.uint8)
    if kind == "extremes":  # the largest coefficients that there are
        return (rng.integers(0, 2, shape) * 255).astype(np.uint8)
    if kind == "stripes":
        steps = np.array([1, 2, 4, 8])[:, None, None]
        return (((x // steps + y // steps) % 2)[..., None] * [255, 255, 0]).astype(np.uint8)
    smooth = 128 + 120 * np.sin(x / 9)[..., None] * np.cos(y / 7)[..., None]
    return np.clip(smooth + rng.normal(0, 3, shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("kind", ["flat", "noise", "extremes", "stripes", "smooth"])
@pytest.mark.parametrize(("height", "width"), SIDES)
def test_files_are_those_of_libjpeg_turbo(kind: str, height: int, width: int) -> None:
    batch = pictures(kind, height, width, np.random.default_rng(height * width))
    assert encode_batch(batch, "jpeg").files() == expected(batch)


@settings(max_examples=examples(300), deadline=None)
@given(BATCHES)
def test_any_batch(batch: Images) -> None:
    encoded = encode_batch(batch, "jpeg")
    assert encoded.files() == expected(batch)
    assert encoded.starts[-1] == len(encoded.data)


@pytest.mark.parametrize("values", [2, 3, 256])
def test_many_small_images_of_few_values(values: int) -> None:
    """Every mixture of extremes in a block or two, where words of 16 bits might overflow."""
    rng = np.random.default_rng(values)
    levels = np.linspace(0, 255, values).astype(np.uint8)
    batch = levels[rng.integers(0, values, (3000, 8, 16, 3))]
    assert encode_batch(batch, "jpeg").files() == expected(batch)


def test_the_largest_coefficient_of_every_frequency() -> None:
    """Of each sign, in every colour, and next to its opposite."""
    waves = np.cos(np.outer(np.arange(8), 2 * np.arange(8) + 1) * np.pi / 16)  # by frequency, x
    blocks = np.einsum("uy,vx->uvyx", waves, waves).reshape(64, 8, 8) > 0
    pairs = np.concatenate([blocks, ~blocks], axis=2)
    colours = np.array([[255, 255, 255], [255, 0, 0], [0, 0, 255], [0, 255, 255], [255, 255, 0]])
    batch = (pairs[:, None, :, :, None] * colours[:, None, None, :]).reshape(-1, 8, 16, 3)
    batch = np.concatenate([batch, 255 - batch]).astype(np.uint8)
    assert encode_batch(batch, "jpeg").files() == expected(batch)


@pytest.mark.slow
def test_a_large_image() -> None:
    batch = pictures("noise", 1024, 1031, np.random.default_rng(0))
    assert encode_batch(batch, "jpeg").files() == expected(batch)


def test_other_programs_read_them() -> None:
    batch = pictures("smooth", 32, 32, np.random.default_rng(1))
    for picture, file in zip(batch, encode_batch(batch, "jpeg").files(), strict=True):
        with Image.open(io.BytesIO(file)) as image:
            assert (image.format, image.size, image.mode) == ("JPEG", (32, 32), "RGB")
            found = np.asarray(image).astype(int)
        assert np.abs(found - picture).max() < 24
        assert np.array_equal(decode_jpeg(file).shape, picture.shape)


def test_a_batch_that_is_part_of_another_is_taken_as_it_is() -> None:
    whole = pictures("noise", 64, 64, np.random.default_rng(2))
    part = whole[::2, 3:40, ::-2]
    assert encode_batch(part, "jpeg").files() == expected(part)


def test_threads_share_no_state() -> None:
    rng = np.random.default_rng(3)
    batches = [rng.integers(0, 256, (8, 32, 32, 3), np.uint8) for _ in range(16)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda batch: encode_batch(batch, "jpeg").files(), batches))
    assert found == [expected(batch) for batch in batches]


@pytest.mark.parametrize("shape", [(1, 0, 4, 3), (1, 4, 0, 3), (1, 1, 65_501, 3)])
def test_images_that_no_jpeg_holds_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="JPEG takes"):
        encode_batch(np.zeros(shape, np.uint8), "jpeg")
