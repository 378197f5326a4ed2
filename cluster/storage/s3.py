"""A store in an S3 bucket, on boto3.

Ordinary requests are retried by boto3 (``standard`` mode). A conditional PUT is sent through a
client without retries, one request at a time, so that its outcome is known as well as it can be.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, BinaryIO, cast
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from cluster.clock import utc_now
from cluster.errors import ClusterError, CommitStateUnknown, Fatal, NotFound, Retryable, UserError
from cluster.storage.backoff import Backoff
from cluster.storage.chunks import Chunks
from cluster.storage.object_store import (
    Checksum,
    ConditionsUnsupported,
    ObjectInfo,
    StoreConfig,
    check_key,
    check_prefix,
)
from cluster.storage.position import RawReader
from cluster.storage.s3_client import connect
from cluster.storage.s3_errors import (
    Request,
    WebPage,
    clock_offset,
    http_status,
    is_denied,
    is_unreachable,
    refuses_condition,
    translate,
)
from cluster.storage.s3_writes import put_in_parts, put_whole

MULTIPART_BYTES = 64 * 2**20  # above this an object is sent in parts
READ_AHEAD_BYTES = 1 * 2**20
CHECKSUMS: tuple[Checksum | None, ...] = ("crc32", "md5", None)  # the best first
_BODY_TRIES = 3


class S3Store:
    """The store of ``s3://bucket/prefix``.

    Credentials come from boto3's usual chain in each process. An endpoint found there (an
    environment variable, a profile) becomes part of ``config``, so that another process which
    opens the same config reaches the same server.

    ``config.single_writer``: the server need not honour conditional writes. ``put_if_absent``
    then looks first and writes after; between the two another writer could do the same, and
    both would get True. So this mode is right only while one process writes all
    conditional objects (the coordinator that holds the current epoch).
    """

    def __init__(self, config: StoreConfig, *, backoff: Backoff | None = None) -> None:
        address = urlsplit(config.uri)
        self._bucket = address.netloc
        self._prefix = address.path.strip("/")
        if self._prefix:
            self._prefix += "/"
        self._connection = connect(config)
        self._client = self._connection.retried
        self.endpoint_url = self._connection.endpoint_url
        self._backoff = backoff or Backoff()
        self._answered = False
        self.config = replace(
            config,
            endpoint_url=None if self._connection.is_amazon else self.endpoint_url,
            region=self._connection.region,
        )

    def __reduce__(self) -> tuple[type[S3Store], tuple[StoreConfig]]:
        return S3Store, (self.config,)

    def get(self, key: str) -> bytes:
        return self._read(key, {})

    def put(self, key: str, data: bytes | Chunks) -> None:
        name = self._name(key)
        chunks = data if isinstance(data, Chunks) else Chunks([data])
        where = (self._client, self.config, self._bucket, name)
        with self._translated("PUT", name):
            if chunks.size_bytes <= MULTIPART_BYTES:
                put_whole(*where, chunks)
            else:
                put_in_parts(*where, chunks)

    def adapt(self, key: str, data: bytes) -> timedelta | None:
        """Write an object with the best checksum that the server takes, and keep to it.

        Returns this machine's clock minus the server's, where its reply has a date. Raises
        UserError if the server does not encrypt as ``config.sse`` demands.
        """
        name = self._name(key)
        for checksum in CHECKSUMS:
            self.config = replace(self.config, checksum=checksum)
            try:
                with self._translated("PUT", name):
                    reply = put_whole(self._client, self.config, self._bucket, name, data)
                break
            except Fatal as error:  # 400 or 501, for a reason that is not known
                reply = error.__cause__
                refused = isinstance(reply, ClientError) and http_status(reply) in (400, 501)
                if checksum is None or not refused:
                    raise
        if self.config.sse and reply.get("ServerSideEncryption") != self.config.sse:
            with suppress(ClusterError):
                self.delete(key)
            raise UserError(
                f"{self._at('PUT', name)}: the server took the object, but not --sse "
                f"{self.config.sse}: leave it out, or use a server that encrypts",
                "leave --sse out, or use a server that encrypts",
            )
        return clock_offset(reply["ResponseMetadata"]["HTTPHeaders"].get("date", ""), utc_now())

    def put_if_absent(self, key: str, data: bytes) -> bool:
        name = self._name(key)
        if self.config.single_writer and self._exists(name):
            return False
        last: Exception | None = None
        for _ in self._backoff.tries():
            try:
                with self._translated("PUT", name):
                    return self._put_conditional(name, data)
            except Retryable as error:
                last = error
        raise CommitStateUnknown(
            f"{self._at('PUT', name)}: whether it was written is unknown after "
            f"{self._backoff.attempts} tries; the last error: {last}"
        ) from last

    def list(self, prefix: str, *, after: str = "") -> Iterator[ObjectInfo]:
        name = self._prefix + check_prefix(prefix)
        above = prefix.rpartition("/")[0]
        first, waiting = "", list[ObjectInfo]()
        for info in self._listed_after(name, after) if after else self._listed(name):
            # SeaweedFS lists by directories: "a/b" before "a-b". So what begins alike is sorted,
            # a few keys at a time.
            part = info.key[len(above) :].lstrip("/").partition("/")[0]
            if not part.startswith(first) or not waiting:
                yield from sorted(waiting, key=lambda info: info.key)
                first, waiting = part, []
            waiting.append(info)
        yield from sorted(waiting, key=lambda info: info.key)

    def _listed_after(self, name: str, after: str) -> Iterator[ObjectInfo]:
        begun = False
        try:
            for info in self._listed(name, self._prefix + after):
                begun = True
                if info.key > after:
                    yield info
        except Fatal as error:  # JuiceFS answers 501: it lists everything, or nothing
            reply = error.__cause__
            if begun or not isinstance(reply, ClientError) or http_status(reply) != 501:
                raise
            yield from (info for info in self._listed(name) if info.key > after)

    def _listed(self, name: str, after: str = "") -> Iterator[ObjectInfo]:
        """In the server's order, page by page."""
        with self._translated("LIST", name):
            options: dict[str, Any] = {"StartAfter": after} if after else {}
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=name, **options
            )
            for page in pages:
                for item in page.get("Contents", []):
                    yield ObjectInfo(item["Key"].removeprefix(self._prefix), item["Size"])

    def list_dirs(self, prefix: str) -> Sequence[str]:
        name = self._prefix + check_prefix(prefix)
        with self._translated("LIST", name):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=name, Delimiter="/"
            )
            found = [item["Prefix"] for page in pages for item in page.get("CommonPrefixes", [])]
        return sorted(path.removeprefix(name).removesuffix("/") for path in found)

    def delete(self, key: str) -> None:
        name = self._name(key)
        try:
            with self._translated("DELETE", name):
                self._client.delete_object(Bucket=self._bucket, Key=name)
        except NotFound:
            pass  # S3 answers 204 here; some servers 404

    def open_reader(self, key: str) -> AbstractContextManager[BinaryIO]:
        name = self._name(key)
        size_bytes = self._head(name)["ContentLength"]
        return cast(BinaryIO, io.BufferedReader(_Ranges(self, key, size_bytes), READ_AHEAD_BYTES))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of an object that has them."""
        return self._read(key, {"Range": f"bytes={start}-{stop - 1}"}) if stop > start else b""

    def _read(self, key: str, options: dict[str, Any]) -> bytes:
        name = self._name(key)
        last: Exception | None = None
        for _ in range(_BODY_TRIES):  # boto3 retries a request, not the reading of its reply
            with self._or_absent(name), self._translated("GET", name):
                reply = self._client.get_object(Bucket=self._bucket, Key=name, **options)
            try:
                with self._translated("GET", name):
                    return reply["Body"].read()
            except Retryable as error:
                last = error
        raise Retryable(
            f"{self._at('GET', name)}: broke off {_BODY_TRIES} times; the last error: {last}"
        ) from last

    def _put_conditional(self, name: str, data: bytes) -> bool:
        client, where = self._connection.unretried, (self.config, self._bucket, name, data)
        try:
            put_whole(client, *where, IfNoneMatch="*")
        except ClientError as error:
            if http_status(error) == 412:
                return False
            if not refuses_condition(error):
                raise
            if not self.config.single_writer:
                raise ConditionsUnsupported(
                    f"{self._at('PUT', name)}: the server does not support conditional writes"
                ) from None
            put_whole(client, *where)
        return True

    def _exists(self, name: str) -> bool:
        try:
            self._head(name)
        except NotFound:
            return False
        return True

    def _head(self, name: str) -> Any:
        with self._or_absent(name), self._translated("HEAD", name):
            return self._client.head_object(Bucket=self._bucket, Key=name)

    @contextmanager
    def _or_absent(self, name: str) -> Iterator[None]:
        """Some servers, and AWS where the right to list has conditions, answer 403 for a key that
        does not exist. A listing shows which of the two it is."""
        try:
            yield
        except UserError as error:
            reply = error.__cause__
            if not isinstance(reply, ClientError) or not is_denied(reply):
                raise
            with suppress(ClientError, BotoCoreError):
                page = self._client.list_objects_v2(Bucket=self._bucket, Prefix=name, MaxKeys=1)
                if name not in [item["Key"] for item in page.get("Contents", [])]:
                    raise NotFound(f"{self._at('GET', name)}: there is no such object") from error
            raise

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _at(self, verb: str, name: str) -> str:
        return f"{verb} s3://{self._bucket}/{name} at {self.endpoint_url}"

    @contextmanager
    def _translated(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError, ResponseParserError, WebPage) as error:
            connection = self._connection
            request = Request(verb, self._at(verb, name), connection.secrets(), connection.proxy())
            meant = translate(error, request)
            # A server that never answered is a wrong address; one that did may be restarting.
            if is_unreachable(error) and not self._answered:
                meant = UserError(str(meant), meant.fix)
            self._answered |= isinstance(error, ClientError)
            raise meant from error
        self._answered = True


class _Ranges(RawReader):
    """An object as a seekable raw stream: one ranged GET a read."""

    def __init__(self, store: S3Store, key: str, size_bytes: int) -> None:
        super().__init__(size_bytes)
        self._store, self._key = store, key

    def readinto(self, buffer: Any, /) -> int:
        stop = min(self._at + len(buffer), self._size_bytes)
        data = self._store.read_range(self._key, self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)
