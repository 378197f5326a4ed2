"""Encode pixels as image files."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cluster.pipeline.encoded import LENGTH_BYTES, Encoded
from cluster.types import ImageEncoding

_COMPILED: tuple[ImageEncoding, ...] = ("png", "jpeg")
# Lossless; method 4 takes over ten times as long to save another 1 % (docs/adr/0012-png-encoder.md)
_SAVE_OPTIONS: dict[ImageEncoding, dict[str, Any]] = {
    "webp": {"format": "WEBP", "lossless": True, "method": 0},
}


def encode_batch(batch: NDArray[np.uint8], encoding: ImageEncoding) -> Encoded:
    """Encode images (B, H, W, 3), RGB uint8, each into a file of its own.

    ``png`` and ``webp`` are lossless, ``jpeg`` is quality 95 without chroma subsampling. ``raw`` is
    a binary PPM: the bare pixels after a header of some 13 bytes, so that all files are equally
    large and any image library reads them. A file depends on its own image only, and all codecs
    release the GIL: threads may encode a batch each.
    Raises ValueError if ``batch`` is anything but uint8 of that shape.
    """
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[-1] != 3:
        raise ValueError(f"images are {batch.dtype} {batch.shape}; expected uint8 (B, H, W, 3)")
    if encoding == "raw":
        return _ppm(batch)
    if encoding == "png":
        from cluster.pipeline.png import encode_png  # numba, which is slow to import

        return encode_png(batch)
    if encoding == "jpeg":
        from cluster.pipeline.jpeg import encode_jpeg

        return encode_jpeg(batch)
    return Encoded.of(_saved(picture, _SAVE_OPTIONS[encoding]) for picture in batch)


def warm_up() -> None:
    """Compile what encodes PNG and JPEG, unless a cache has it: 21 s of CPU once a machine, which
    would else count as a job's first images'."""
    for encoding in _COMPILED:
        encode_batch(np.zeros((1, 8, 8, 3), np.uint8), encoding)


def _ppm(batch: NDArray[np.uint8]) -> Encoded:
    count, height, width, _ = batch.shape
    header = b"P6 %d %d 255\n" % (width, height)
    file_bytes = len(header) + height * width * 3
    head = np.frombuffer(file_bytes.to_bytes(LENGTH_BYTES, "little") + header, np.uint8)
    files = np.empty((count, LENGTH_BYTES + file_bytes), np.uint8)
    files[:, : len(head)] = head
    files[:, len(head) :].reshape(batch.shape)[...] = batch
    return Encoded(files.reshape(-1), np.arange(count + 1, dtype=np.int64) * files.shape[1])


def _saved(picture: NDArray[np.uint8], options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, **options)
    return buffer.getvalue()
