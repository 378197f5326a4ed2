"""Compression of Parquet pages. Each page is on its own, and the GIL is released meanwhile."""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from typing import cast

import pyarrow as pa

from cluster.pipeline.parquet_pages import Page
from cluster.types import Compression

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

NUMBERS: dict[Compression, int] = {"none": 0, "zstd": 6, "lz4": 7}  # of the format; lz4: LZ4_RAW

_SAMPLE_BYTES = 8 << 10  # of each page
_WORTH = 8  # a row group that shrinks by less than an eighth is left as it is; so does ZFS

# Against level 1: tables that stay in the L1 cache, matches of 6 bytes, and steps of 3 instead of
# 2 where nothing matches. A fifth to a third less time on images; files as large or smaller.
_ZSTD: dict[int, int] = {
    zstd.CompressionParameter.strategy: zstd.Strategy.fast,
    zstd.CompressionParameter.target_length: 2,
    zstd.CompressionParameter.window_log: 17,
    zstd.CompressionParameter.hash_log: 11,
    zstd.CompressionParameter.chain_log: 11,
    zstd.CompressionParameter.search_log: 1,
    zstd.CompressionParameter.min_match: 6,
    # ZSTD_c_literalCompressionMode, on: with such steps zstd would leave literals uncompressed,
    # and noisy images, which are all literals, would not shrink. Experimental by name only: the
    # number is the same since version 1.3.8.
    1002: 1,
}


class _OfThread(threading.local):
    """A compressor serves one thread at a time; making one clears its tables."""

    def __init__(self) -> None:
        self.zstd = zstd.ZstdCompressor(options=_ZSTD)
        self.lz4 = pa.Codec("lz4_raw")


_own = _OfThread()


def compress(data: bytes, codec: Compression) -> bytes:
    """The data, compressed. Equal data gives equal bytes, with one version of the libraries."""
    if codec == "zstd":
        return _own.zstd.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
    if codec == "lz4":
        return cast(bytes, _own.lz4.compress(data, asbytes=True))
    return data


def pays(pages: Sequence[Page], codec: Compression) -> bool:
    """Whether these pages are worth compressing, by a sample from the start of each."""
    sample = b"".join(part for page in pages for part in _start(page, _SAMPLE_BYTES))
    return len(compress(sample, codec)) <= len(sample) - len(sample) // _WORTH


def _start(page: Page, size: int) -> list[bytes | memoryview]:
    taken = []
    for buffer in page.buffers:
        taken.append(buffer[:size])
        size -= len(taken[-1])
    return taken
