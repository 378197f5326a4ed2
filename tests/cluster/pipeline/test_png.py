"""Our PNG files as other programs read them."""

from __future__ import annotations

import io

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from PIL import Image

from cluster.pipeline.png import encode_png

BATCHES = hnp.arrays(
    np.uint8, st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9), st.just(3))
)


@settings(deadline=None)
@given(BATCHES)
def test_pillow_reads_back_every_pixel(batch: NDArray[np.uint8]) -> None:
    files = encode_png(batch)
    assert len(files) == len(batch)
    for data, picture in zip(files, batch, strict=True):
        image = Image.open(io.BytesIO(data))
        image.load()  # checks the checksums
        assert (image.format, image.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(image), picture)


def test_a_part_of_a_batch_is_encoded_alike() -> None:
    batch = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3)).astype(np.uint8)
    assert encode_png(batch[1:3]) == encode_png(batch)[1:3]
    assert encode_png(batch[:, ::2, ::2]) == encode_png(batch[:, ::2, ::2].copy())
