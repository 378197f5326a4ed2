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
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from typing import Any, get_args

import before
from pictures import Images, bundled, natural
from PIL import Image

from cluster.pipeline.encode import encode_batch
from cluster.types import ImageEncoding

Files = Sequence[bytes]
TILE = 128  # images a thread encodes at once
THREADS = (1, 2)


# --- what stood before, and peers ---


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
    for encoding in ("raw", "jpeg", "webp"):
        found[encoding, "before"] = partial(before.encode, encoding=encoding)
    found["png", "Pillow 1"] = lambda b: saved(b, format="PNG", compress_level=1)
    if find_spec("deflate"):
        deflate = import_module("deflate")
        found["png", "before"] = partial(before.encode, encoding="png")
        one = partial(deflate.zlib_compress, compresslevel=1)
        found["png", "libdeflate 1"] = partial(before.encode_png, compress=one)
    if find_spec("isal"):
        isal = import_module("isal.isal_zlib")
        one_of_isal = partial(isal.compress, level=1)
        found["png", "ISA-L 1"] = partial(before.encode_png, compress=one_of_isal)
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
    rows = measure("bundled", bundled(options.count), options.rounds)
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
