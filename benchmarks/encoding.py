"""What encoding costs: ours against the libraries that write PNG, by CPU time and size.

Images: of the bundled model, and of natural (1/f) statistics with a little noise, which compress
badly. One thread; rounds interleaved, medians. Ours are ``cluster.pipeline.encode.encode_images``;
``parquet`` adds writing the shard (for raw, with zstd). Peers that are not installed are left out:
``pip install opencv-python-headless imagecodecs simplejpeg``.

    python benchmarks/encoding.py [--count 512] [--rounds 7] [--json]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from cluster.pipeline.encode import encode_images
from un0 import DEFAULT_MODEL, Sampler, load_model

Images = NDArray[np.uint8]
Encode = Callable[[Images], list[bytes]]


def natural(count: int, side: int) -> Images:
    """Images whose amplitude falls with frequency, as in photographs."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    amplitude = 1 / np.maximum(frequency, 1 / side)
    phase = rng.uniform(0, 2 * np.pi, (count, 3, *amplitude.shape))
    waves = np.fft.irfft2(amplitude * np.exp(1j * phase), s=(side, side))
    waves = waves / waves.std() * 50 + 128 + rng.normal(0, 2, waves.shape)
    return np.clip(waves, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


def pillow(batch: Images, level: int) -> list[bytes]:
    files = []
    for picture in batch:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, "PNG", compress_level=level)
        files.append(buffer.getvalue())
    return files


def peers() -> dict[str, Encode]:
    """PNG and JPEG by other libraries, as far as they are installed."""
    found: dict[str, Encode] = {
        "Pillow png 1": lambda batch: pillow(batch, 1),
        "Pillow png 6": lambda batch: pillow(batch, 6),
    }
    if find_spec("cv2"):
        cv2 = import_module("cv2")
        level = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        found["OpenCV png"] = lambda b: [cv2.imencode(".png", x[..., ::-1])[1].tobytes() for x in b]
        found["OpenCV png 1"] = lambda b: [
            cv2.imencode(".png", x[..., ::-1], level)[1].tobytes() for x in b
        ]
    if find_spec("imagecodecs"):
        codecs = import_module("imagecodecs")
        found["imagecodecs png 1"] = lambda b: [codecs.png_encode(x, level=1) for x in b]
    if find_spec("simplejpeg"):
        jpeg = import_module("simplejpeg")
        found["simplejpeg jpeg"] = lambda b: [
            jpeg.encode_jpeg(x, quality=95, colorsubsampling="444") for x in b
        ]
    return found


def parquet(files: list[bytes], compression: str) -> list[bytes]:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"image": files}), sink, compression=compression, use_dictionary=False)
    return [bytes(sink.getvalue())]


def ours() -> dict[str, Encode]:
    ways: dict[str, Encode] = {
        f"un0 {encoding}": lambda batch, e=encoding: encode_images(batch, e)  # type: ignore[misc]
        for encoding in ("png", "webp", "jpeg", "raw")
    }
    ways["un0 png, parquet"] = lambda b: parquet(encode_images(b, "png"), "none")
    ways["un0 raw, parquet"] = lambda b: parquet(encode_images(b, "raw"), "zstd")
    return ways


def measure(name: str, batch: Images, rounds: int) -> list[dict[str, Any]]:
    ways = ours() | peers()
    spent: dict[str, list[float]] = {way: [] for way in ways}
    size = {way: sum(map(len, encode(batch))) / len(batch) for way, encode in ways.items()}
    for _ in range(rounds):
        for way, encode in ways.items():
            begin_s = time.thread_time()
            encode(batch)
            spent[way].append((time.thread_time() - begin_s) / len(batch))
    return [
        {
            "pictures": name,
            "side": batch.shape[1],
            "encoder": way,
            "us_per_image": 1e6 * statistics.median(seconds),
            "bytes_per_image": size[way],
        }
        for way, seconds in spent.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sampler = Sampler(load_model(DEFAULT_MODEL), device="cpu")
    classes = np.arange(options.count) % sampler.config.num_classes
    rows = measure("bundled", sampler.generate(0, 0, classes), options.rounds)
    rows += measure("natural", natural(options.count, 32), options.rounds)
    rows += measure("natural", natural(options.count, 64), options.rounds)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"load average {os.getloadavg()[0]:.1f}")
    print(f"{'pictures':10} {'side':>4}  {'encoder':18}  {'CPU us':>7}  {'bytes':>7}")
    for row in rows:
        print(
            f"{row['pictures']:10} {row['side']:4}  {row['encoder']:18}  "
            f"{row['us_per_image']:7.1f}  {row['bytes_per_image']:7.0f}"
        )


if __name__ == "__main__":
    main()
