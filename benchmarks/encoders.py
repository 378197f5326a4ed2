"""What encoding costs: ours against the libraries that write PNG and JPEG, and what stood before.

Pictures: of the bundled model (32 px), and of natural (1/f) statistics with a little noise, which
compress badly. Threads take tiles from one queue; rounds interleaved, medians. "before" is what
stood until ``cluster.pipeline.encode.encode_batch``: libdeflate 3 on rows filtered by Sub, one
Python object an image. Peers that are not installed are left out:
``pip install deflate fpng imagecodecs isal opencv-python-headless``.

    python benchmarks/encoders.py [--count 1024] [--rounds 7] [--json]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from importlib.util import find_spec
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from simplejpeg import encode_jpeg

from cluster.pipeline.encode import encode_batch
from cluster.types import ImageEncoding
from un0 import DEFAULT_MODEL, Sampler, load_model

Images = NDArray[np.uint8]
Files = Sequence[bytes]
TILE = 128  # images a thread encodes at once
THREADS = (1, 2)


def natural(count: int, side: int) -> Images:
    """Images whose amplitude falls with frequency, as in photographs."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.rfftfreq(side), indexing="ij"))
    amplitude = 1 / np.maximum(frequency, 1 / side)
    phase = rng.uniform(0, 2 * np.pi, (count, 3, *amplitude.shape))
    waves = np.fft.irfft2(amplitude * np.exp(1j * phase), s=(side, side))
    waves = waves / waves.std() * 50 + 128 + rng.normal(0, 2, waves.shape)
    return np.clip(waves, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1).copy()


# --- what stood before, and peers ---


def filtered_by_sub(batch: Images) -> Images:
    count, height, width, _ = batch.shape
    pixels = batch.reshape(count, height, 3 * width)
    rows = np.empty((count, height, 1 + 3 * width), dtype=np.uint8)
    rows[:, :, 0] = 1
    rows[:, :, 1:4] = pixels[:, :, :3]
    np.subtract(pixels[:, :, 3:], pixels[:, :, :-3], out=rows[:, :, 4:])
    return rows


def png_with(compress: Callable[[Any], bytes]) -> Callable[[Images], Files]:
    """PNG with the filter Sub and a zlib stream by someone else."""

    def encode(batch: Images) -> Files:
        _, height, width, _ = batch.shape
        shape = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
        head, end = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", shape), chunk(b"IEND", b"")
        return [head + chunk(b"IDAT", compress(rows)) + end for rows in filtered_by_sub(batch)]

    return encode


def chunk(kind: bytes, data: bytes) -> bytes:
    named = kind + data
    return struct.pack(">I", len(data)) + named + struct.pack(">I", zlib.crc32(named))


def raw_before(batch: Images) -> Files:
    header = b"P6 %d %d 255\n" % (batch.shape[2], batch.shape[1])
    return [header + picture.tobytes() for picture in batch]


def jpeg_before(batch: Images) -> Files:
    return [encode_jpeg(picture, quality=95, colorsubsampling="444") for picture in batch]


def saved(batch: Images, **options: Any) -> Files:
    files = []
    for picture in batch:
        buffer = io.BytesIO()
        Image.fromarray(picture).save(buffer, **options)
        files.append(buffer.getvalue())
    return files


def ours(encoding: ImageEncoding) -> Callable[[Images], Files]:
    def encode(batch: Images) -> Files:
        encoded = encode_batch(batch, encoding)
        return [encoded.data[: encoded.file_bytes].data]  # type: ignore[list-item]  # without lengths

    return encode


def encoders() -> dict[tuple[str, str], Callable[[Images], Files]]:
    """By encoding and name."""
    found: dict[tuple[str, str], Callable[[Images], Files]] = {
        (encoding, "un0"): ours(encoding) for encoding in get_args(ImageEncoding)
    }
    found["raw", "before"] = raw_before
    found["jpeg", "before"] = jpeg_before
    found["webp", "before"] = lambda b: saved(b, format="WEBP", lossless=True, method=0)
    found["png", "Pillow 1"] = lambda b: saved(b, format="PNG", compress_level=1)
    if find_spec("deflate"):
        deflate = import_module("deflate")
        found["png", "before"] = png_with(lambda rows: deflate.zlib_compress(rows, 3))
        found["png", "libdeflate 1"] = png_with(lambda rows: deflate.zlib_compress(rows, 1))
    if find_spec("isal"):
        isal = import_module("isal.isal_zlib")
        found["png", "ISA-L 1"] = png_with(lambda rows: isal.compress(rows, 1))
    if find_spec("fpng"):
        fpng = import_module("fpng")
        found["png", "fpng"] = lambda b: [fpng.from_ndarray(x) for x in b]
    if find_spec("cv2"):
        cv2 = import_module("cv2")
        level = [cv2.IMWRITE_PNG_COMPRESSION, 1]
        found["png", "OpenCV 1"] = lambda b: [
            cv2.imencode(".png", x[..., ::-1], level)[1] for x in b
        ]
    if find_spec("imagecodecs"):
        codecs = import_module("imagecodecs")
        found["png", "imagecodecs 1"] = lambda b: [codecs.png_encode(x, level=1) for x in b]
        found["jpeg", "imagecodecs"] = lambda b: [
            codecs.jpeg8_encode(x, level=95, subsampling="444") for x in b
        ]
    return found


def measure(name: str, batch: Images, rounds: int) -> list[dict[str, Any]]:
    ways = encoders()
    tiles = [batch[start : start + TILE] for start in range(0, len(batch), TILE)]
    spent: dict[Any, list[tuple[float, float]]] = {(*w, n): [] for w in ways for n in THREADS}
    size = {way: sum(map(len, encode(batch))) / len(batch) for way, encode in ways.items()}
    pools = {threads: ThreadPoolExecutor(threads) for threads in THREADS}
    for _ in range(rounds):
        for way, encode in ways.items():
            for threads, pool in pools.items():
                begin_s, begin_cpu_s = time.perf_counter(), time.process_time()
                for _ in pool.map(encode, tiles):
                    pass
                used = time.perf_counter() - begin_s, time.process_time() - begin_cpu_s
                spent[(*way, threads)].append(used)
    rows = []
    for (encoding, encoder, threads), used in spent.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*used, strict=True))
        row = {
            "pictures": name,
            "px": batch.shape[1],
            "encoding": encoding,
            "encoder": encoder,
            "threads": threads,
            "images_per_s": len(batch) / wall_s,
            "images_per_cpu_s": len(batch) / cpu_s,
            "bytes_per_image": size[encoding, encoder],
        }
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=1024, help="images of 32 px; a fourth at 64")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    sampler = Sampler(load_model(DEFAULT_MODEL), device="cpu")
    classes = np.arange(options.count) % sampler.config.num_classes
    rows = measure("bundled", sampler.generate(0, 0, classes), options.rounds)
    rows += measure("natural", natural(options.count, 32), options.rounds)
    rows += measure("natural", natural(max(1, options.count // 4), 64), options.rounds)
    if options.json:
        print(json.dumps(rows, indent=2))
        return
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} CPUs")
    columns = ("images/s", "per CPU s", "bytes")
    print(f"{'pictures':9}{'px':>3}  {'encoding':9}{'encoder':14}{'threads':>8}", end="")
    print(*(f"{column:>11}" for column in columns), sep="")
    for row in sorted(rows, key=lambda r: (r["pictures"], r["px"], r["encoding"])):
        print(
            f"{row['pictures']:9}{row['px']:3}  {row['encoding']:9}{row['encoder']:14}"
            f"{row['threads']:8}{row['images_per_s']:11,.0f}{row['images_per_cpu_s']:11,.0f}"
            f"{row['bytes_per_image']:11,.0f}"
        )


if __name__ == "__main__":
    main()
