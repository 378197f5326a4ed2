"""Where the rows of a job come from: a file here, on S3, or in the job's own store."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from cluster.errors import NotFound, UserError
from cluster.storage.layout import FLEET, JOBS
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from jobs.spec import InputFormat, InputsSpec

IN_STORE = "store:"  # before a key of the job's own store
_SUFFIXES: dict[str, InputFormat] = {
    ".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl",
}  # fmt: skip
_BUFFER = 1 << 20


def format_of(inputs: InputsSpec) -> InputFormat:
    """As given, or by the source's name. Raises UserError."""
    if inputs.format is not None:
        return inputs.format
    found = _SUFFIXES.get(Path(inputs.source).suffix.lower())
    if found is None:
        raise UserError(
            f"inputs: the format of {inputs.source!r} is not known by its name; give format: "
            "parquet, csv or jsonl"
        )
    return found


def check_remote(inputs: InputsSpec) -> None:
    """Refuse, by UserError, a source that a process must not read for somebody elsewhere: files of
    its own, other buckets, and what the store has of other jobs."""
    key = inputs.source.removeprefix(IN_STORE)
    own = any(key.startswith(prefix) for prefix in (JOBS, "service/", "energy/", FLEET))
    if key == inputs.source or own or ".." in key:
        raise UserError(
            f"inputs: {inputs.source!r} cannot be read here; put the file into the store, say as "
            f"uploads/rows.parquet, and give {IN_STORE}uploads/rows.parquet"
        )


@contextmanager
def opened(inputs: InputsSpec, store: ObjectStore) -> Iterator[BinaryIO]:
    """The source's bytes, seekable, never read whole. Raises UserError if it is not there."""
    source = inputs.source
    try:
        if source.startswith(IN_STORE):
            with store.open_reader(source.removeprefix(IN_STORE)) as raw:
                yield _buffered(raw)
        elif source.startswith("s3://"):
            folder, _, name = source.rpartition("/")
            config = store.config
            other = open_store(
                folder, endpoint_url=config.endpoint_url, region=config.region, probe=False
            )
            with other.open_reader(name) as raw:
                yield _buffered(raw)
        else:
            with Path(source).open("rb") as file:
                yield file
    except NotFound as error:
        raise UserError(f"inputs: {source} is not there: {error}") from None
    except FileNotFoundError:
        raise UserError(f"inputs: {source} is not there; check the path") from None
    except (PermissionError, IsADirectoryError) as error:
        raise UserError(f"inputs: cannot read {source}: {error}") from None


def _buffered(raw: BinaryIO) -> BinaryIO:
    return io.BufferedReader(cast(io.RawIOBase, raw), _BUFFER)
