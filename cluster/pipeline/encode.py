"""Encode pixels as image files."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from simplejpeg import encode_jpeg

from cluster.types import ImageEncoding

# Lossless; method 4 takes over ten times as long to save another 1 % (docs/adr/0012-png-encoder.md)
_SAVE_OPTIONS: dict[ImageEncoding, dict[str, Any]] = {
    "webp": {"format": "WEBP", "lossless": True, "method": 0},
}


@dataclass(frozen=True)
class Encoded:
    """Files of consecutive images, back to back in one buffer."""

    offsets: NDArray[np.int64]  # (B + 1,), from 0: file i is data[offsets[i] : offsets[i + 1]]
    data: NDArray[np.uint8]  # (offsets[-1],), contiguous

    def __len__(self) -> int:
        """How many images."""
        return len(self.offsets) - 1

    def file(self, i: int) -> bytes:
        """A copy of image i's file."""
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()


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

        return Encoded(*encode_png(batch))
    if encoding == "jpeg":
        return _joined(
            encode_jpeg(picture, quality=95, colorsubsampling="444")
            for picture in np.ascontiguousarray(batch)
        )
    return _joined(_saved(picture, _SAVE_OPTIONS[encoding]) for picture in batch)


def encode_images(batch: NDArray[np.uint8], encoding: ImageEncoding) -> list[bytes]:
    """The files of ``encode_batch``, one object each."""
    encoded = encode_batch(batch, encoding)
    return [encoded.file(i) for i in range(len(encoded))]


def _ppm(batch: NDArray[np.uint8]) -> Encoded:
    count, height, width, _ = batch.shape
    header = np.frombuffer(b"P6 %d %d 255\n" % (width, height), np.uint8)
    size = len(header) + height * width * 3
    files = np.empty((count, size), np.uint8)
    files[:, : len(header)] = header
    files[:, len(header) :].reshape(batch.shape)[...] = batch
    return Encoded(np.arange(count + 1, dtype=np.int64) * size, files.reshape(-1))


def _saved(picture: NDArray[np.uint8], options: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, **options)
    return buffer.getvalue()


def _joined(files: Iterable[bytes]) -> Encoded:
    files = list(files)
    offsets = np.zeros(len(files) + 1, np.int64)
    np.cumsum([len(file) for file in files], out=offsets[1:])
    return Encoded(offsets, np.frombuffer(b"".join(files), np.uint8))
