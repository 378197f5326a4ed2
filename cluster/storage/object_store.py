"""The store protocol: the operations that a job needs of an object store."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from cluster.errors import UserError
from cluster.storage.chunks import Chunks

MAX_KEY_BYTES = 1024  # S3's limit
MAX_PART_BYTES = 255  # a file system's limit on one name
# Of one process: with a server that answers 0.2 s late, eight of 16 MB carry 2.4 times what one
# does, sixteen a tenth more than eight for twice the memory (docs/performance.md, "Uploads").
PUTS_IN_FLIGHT = 8


class ConditionsUnsupported(UserError):
    """The server refuses conditional writes outright."""


Encryption = Literal["AES256", "aws:kms", "aws:kms:dsse"]
Checksum = Literal["crc32", "md5"]


@dataclass(frozen=True)
class ObjectInfo:
    key: str
    size_bytes: int


@dataclass(frozen=True)
class StoreConfig:
    """How to open a store. Contains no credentials: each process finds its own.

    uri: ``file:///absolute/dir`` or ``s3://bucket/prefix``.
    single_writer: accept an S3 server that ignores conditional writes; then one fenced
        coordinator must write every commit record.
    sse: server-side encryption that every S3 write asks for; sse_kms_key: with this key.
    checksum: sent with every S3 write, as opening found that the server takes it; None: none.
    existing: the directory was there when the store was opened: it is never made anew.
    """

    uri: str
    endpoint_url: str | None = None
    region: str | None = None
    single_writer: bool = False
    sse: Encryption | None = None
    sse_kms_key: str | None = None
    checksum: Checksum | None = None
    existing: bool = False

    @property
    def lists_whole(self) -> bool:
        """Whether listing a few keys of many side by side takes what listing all of them takes."""
        return self.uri.startswith("file:")

    def digest(self, *, encryption: bool = False) -> str:
        """16 hexadecimal digits for the store's address, as part of the name of what serves it.

        encryption: for its server-side encryption too, where there is one.
        """
        text = f"{self.uri} {self.endpoint_url}"
        if encryption and self.sse:
            text += f" {self.sse} {self.sse_kms_key}"
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class ObjectStore(Protocol):
    """Objects by key under one root. Keys are relative and '/'-separated (see ``check_key``).

    No key may continue another one's path (``a`` and ``a/b``): directories cannot hold that.
    All calls raise Retryable, Fatal or UserError (cluster.errors); reading a missing key raises
    NotFound. What is written is visible at once and whole, or not at all. Implementations are
    thread-safe; another process opens its own from ``config``.
    """

    @property
    def config(self) -> StoreConfig: ...

    def get(self, key: str) -> bytes: ...

    def put(self, key: str, data: bytes | Chunks) -> None:
        """Write the whole object, replacing any there."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Write the object unless the key exists. True: written now. False: it exists.

        Raises CommitStateUnknown when the outcome cannot be known. A False may still be this
        caller's own write (a retried request whose first reply was lost): compare contents.
        """
        ...

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        """Objects whose key starts with prefix, ordered by key (by code point), as they are found.

        after: only those with greater keys; costs what these cost. For prefixes without a '/' in
        what follows them: some servers order directories otherwise, and would skip some.
        """
        ...

    def list_dirs(self, prefix: str) -> Sequence[str]:
        """Names ``d`` for which objects ``<prefix>d/...`` exist, sorted; prefix ends in '/'.

        Takes a request per thousand names, however many objects are below them. May also name
        a directory that has become empty.
        """
        ...

    def delete(self, key: str) -> None:
        """Remove the object; no error when it is not there."""
        ...

    def open_reader(self, key: str) -> AbstractContextManager[BinaryIO]:
        """A seekable binary reader of the object, without loading it whole."""
        ...


def check_key(key: str) -> str:
    """The key, if every store can hold it under exactly this name; UserError otherwise.

    Refused: empty parts, ``.`` and ``..``, a leading or trailing '/', backslashes and control
    characters (some servers rewrite them), and names too long for S3 or a file system.
    """
    parts = key.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise UserError(
            f"object key {key!r}: parts between '/' must not be empty, '.' or '..'; rename it"
        )
    if "\\" in key or any(ord(c) < 32 or 0x7F <= ord(c) < 0xA0 for c in key):
        raise UserError(f"object key {key!r}: no backslash or control character; rename it")
    try:
        sizes = [len(part.encode()) for part in parts]
    except UnicodeEncodeError:
        raise UserError(f"object key {key!r} is not valid Unicode; rename it") from None
    if max(sizes) > MAX_PART_BYTES or sum(sizes) + len(sizes) - 1 > MAX_KEY_BYTES:
        raise UserError(
            f"object key {key!r} is too long: at most {MAX_PART_BYTES} bytes between '/' and "
            f"{MAX_KEY_BYTES} in all"
        )
    return key


def check_prefix(prefix: str) -> str:
    """The prefix of some keys: may be empty, may end in '/' or within a name."""
    if prefix:
        check_key(prefix.removesuffix("/"))
    return prefix
