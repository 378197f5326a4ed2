"""The store protocol: all that a job needs of a place for its objects."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Protocol


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size_bytes: int


@dataclass(frozen=True)
class StoreConfig:
    """How to open a store, without credentials: each process finds those by itself.

    uri: ``file:///absolute/dir`` or ``s3://bucket/prefix``.
    single_writer: accept an S3 server that ignores conditional writes; then one fenced
        coordinator must write every commit record.
    """

    uri: str
    endpoint_url: str | None = None
    region: str | None = None
    single_writer: bool = False


class ObjectStore(Protocol):
    """Objects by key under one root. Keys are relative, '/'-separated, without a leading '/'.

    All calls raise Retryable, Fatal or UserError (cluster.errors); get, delete-free reads of a
    missing key raise NotFound. Implementations are thread-safe.
    """

    @property
    def config(self) -> StoreConfig: ...

    def get(self, key: str) -> bytes: ...

    def put(self, key: str, data: bytes) -> None:
        """Write the whole object, replacing any there."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object unless the key exists. True: written now. False: it exists.

        Raises CommitStateUnknown when the outcome cannot be known. A False may still be this
        caller's own write (a retried request whose first reply was lost): compare contents.
        """
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with prefix, in key order."""
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error when it is not there."""
        ...

    def open_reader(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A seekable binary reader of the object, without loading it whole."""
        ...
