"""The header of a checkpoint: what it holds, read without Arrow from the end of the object.

It is the value of a key in the Parquet footer. The first half of the seal in the name is its
digest, so that nothing else can be taken for it.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import SEEK_END
from typing import BinaryIO

from pydantic import ValidationError

from cluster.errors import Fatal, NotFound
from cluster.storage.layout import JobLayout, parse_checkpoint
from cluster.storage.object_store import ObjectStore
from cluster.types import Checkpoint, CheckpointRef

logger = logging.getLogger(__name__)

HEADER = b"un0.checkpoint"
_DIGITS = 32  # of each digest
_READ_THREADS = 8
_FOOTER_BYTES = 16_384  # that are read at first; more only where ranges have many holes


def key_of(ref: CheckpointRef) -> str:
    return JobLayout(ref.job_id).checkpoint(ref.first, ref.stop, ref.seal)


def read_headers(
    store: ObjectStore, job_id: str, keys: Sequence[str]
) -> tuple[tuple[CheckpointRef, ...], list[str]]:
    """The checkpoints at these keys, by range, none within another, of one range the fullest; and a
    line for each that is not good.

    Reads footers only: damage elsewhere shows when the commits in it are read.
    """
    faults: list[str] = []

    def look(key: str) -> CheckpointRef | None:
        try:
            return _read_header(store, job_id, key)
        except NotFound:
            return None  # a later one has taken its place, and its shards' commits are listed
        except Fatal as error:
            faults.append(str(error))
            return None

    with ThreadPoolExecutor(_READ_THREADS) as pool:
        found = [ref for ref in pool.map(look, keys) if ref is not None]
    chosen: list[CheckpointRef] = []
    for ref in sorted(found, key=lambda ref: (ref.first, -ref.count, ref.seal)):
        if not chosen or ref.first >= chosen[-1].stop:
            chosen.append(ref)
    for line in faults:
        logger.warning("%s; its commits are read one by one", line)
    return tuple(chosen), sorted(faults)


def _read_header(store: ObjectStore, job_id: str, key: str) -> CheckpointRef:
    named = parse_checkpoint(key)
    if named is None:
        raise Fatal(f"{key}: not a checkpoint's name")
    first, stop, seal = named
    with store.open_reader(key) as source:
        text = _header_in(_footer(source))
    if digest(text) != seal.partition("-")[0]:
        raise Fatal(f"{key}: damaged: its header's sha256 is not the one in its name")
    try:
        header = Checkpoint.model_validate_json(text)
    except ValidationError as error:
        raise Fatal(f"{key}: not a checkpoint this version of un0 can read: {error}") from error
    if (header.job_id, header.first, header.stop) != (job_id, first, stop) or not _sound(header):
        raise Fatal(f"{key}: it speaks of job {header.job_id}, shards {header.shards}")
    return CheckpointRef(**dict(header), seal=seal)


def _footer(source: BinaryIO) -> bytes:
    """The Parquet footer: its length and a magic word come last. Empty where there is none."""
    size = source.seek(0, SEEK_END)
    source.seek(max(0, size - _FOOTER_BYTES))
    end = source.read()
    if end[-4:] != b"PAR1" or len(end) < 8:
        return b""
    length = int.from_bytes(end[-8:-4], "little")
    if length + 8 > len(end):
        source.seek(max(0, size - 8 - length))
        end = source.read()
    return end[:-8][-length:]


def _header_in(footer: bytes) -> bytes:
    """The value of the key ``HEADER``. Thrift's compact form: key, field mark, length, value."""
    _, _, after = footer.partition(HEADER + b"\x18")
    length, at = 0, 0
    while at < len(after):
        length |= (after[at] & 0x7F) << (7 * at)
        at += 1
        if after[at - 1] < 0x80:
            break
    return after[at : at + length]


def _sound(header: Checkpoint) -> bool:
    ends = [end for pair in header.shards for end in pair]
    ends = [header.first, *ends, header.stop]
    return header.count > 0 and ends == sorted(ends)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_DIGITS]
