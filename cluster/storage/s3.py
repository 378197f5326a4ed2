"""A store in an S3 bucket, on boto3.

Ordinary requests are retried by boto3 (``standard`` mode). A conditional PUT is sent through a
client without retries, one request at a time, so that its outcome is known as well as it can be.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, cast
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from cluster.errors import CommitStateUnknown, NotFound, Retryable, UserError
from cluster.storage.backoff import Backoff
from cluster.storage.object_store import ObjectInfo, StoreConfig, check_key, check_prefix
from cluster.storage.s3_errors import http_status, is_unreachable, translate

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

MULTIPART_BYTES = 64 * 2**20  # above this an object is sent in parts
READ_AHEAD_BYTES = 1 * 2**20
_REQUEST_TRIES = 4
_BODY_TRIES = 3
_TRANSFER = TransferConfig(
    multipart_threshold=MULTIPART_BYTES, multipart_chunksize=16 * 2**20, max_concurrency=4
)


class ConditionsUnsupported(UserError):
    """The server refuses conditional writes outright."""


class S3Store:
    """The store of ``s3://bucket/prefix``.

    Credentials come from boto3's usual chain in each process. An endpoint found there (an
    environment variable, a profile) becomes part of ``config``, so that another process which
    opens the same config reaches the same server.

    ``config.single_writer``: the server need not honour conditional writes. ``put_if_absent``
    then looks first and writes after; between the two another writer could do the same, and
    both would be told True. So this mode is right only while one process writes all
    conditional objects (the coordinator that holds the current epoch).
    """

    def __init__(self, config: StoreConfig, *, backoff: Backoff | None = None) -> None:
        address = urlsplit(config.uri)
        self._bucket = address.netloc
        self._prefix = address.path.strip("/")
        if self._prefix:
            self._prefix += "/"
        self._client, self._unretried = _clients(config)
        self._endpoint = self._client.meta.endpoint_url
        self._backoff = backoff or Backoff()
        self._answered = False
        self.config = StoreConfig(
            uri=config.uri,
            endpoint_url=None if _is_amazon(self._endpoint) else self._endpoint,
            region=self._client.meta.region_name,
            single_writer=config.single_writer,
        )

    def __reduce__(self) -> tuple[type[S3Store], tuple[StoreConfig]]:
        return S3Store, (self.config,)

    def get(self, key: str) -> bytes:
        return self._read(key, {})

    def put(self, key: str, data: bytes) -> None:
        name = self._name(key)
        with self._translated("PUT", name):
            if len(data) <= MULTIPART_BYTES:
                self._client.put_object(Bucket=self._bucket, Key=name, Body=data)
            else:
                self._client.upload_fileobj(io.BytesIO(data), self._bucket, name, Config=_TRANSFER)

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

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        name = self._prefix + check_prefix(prefix)
        found: list[ObjectInfo] = []
        with self._translated("LIST", name):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=name
            )
            for page in pages:
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self._prefix)
                    found.append(ObjectInfo(key, item["Size"]))
        # SeaweedFS lists by directories: "a/b" before "a-b".
        yield from sorted(found, key=lambda info: info.key)

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
        with self._translated("HEAD", name):
            size_bytes = self._client.head_object(Bucket=self._bucket, Key=name)["ContentLength"]
        return cast(BinaryIO, io.BufferedReader(_Ranges(self, key, size_bytes), READ_AHEAD_BYTES))

    def read_range(self, key: str, start: int, stop: int) -> bytes:
        """Bytes [start, stop) of an object that has them."""
        return self._read(key, {"Range": f"bytes={start}-{stop - 1}"}) if stop > start else b""

    def _read(self, key: str, options: dict[str, Any]) -> bytes:
        name = self._name(key)
        last: Exception | None = None
        for _ in range(_BODY_TRIES):  # boto3 retries a request, not the reading of its reply
            with self._translated("GET", name):
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
        try:
            self._unretried.put_object(Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*")
        except ClientError as error:
            if http_status(error) == 412:
                return False
            if http_status(error) != 501:
                raise
            if not self.config.single_writer:
                raise ConditionsUnsupported(
                    f"{self._at('PUT', name)}: the server does not support conditional writes"
                ) from None
            self._unretried.put_object(Bucket=self._bucket, Key=name, Body=data)
        return True

    def _exists(self, name: str) -> bool:
        try:
            with self._translated("HEAD", name):
                self._client.head_object(Bucket=self._bucket, Key=name)
        except NotFound:
            return False
        return True

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    def _at(self, verb: str, name: str) -> str:
        return f"{verb} s3://{self._bucket}/{name} at {self._endpoint}"

    @contextmanager
    def _translated(self, verb: str, name: str) -> Iterator[None]:
        try:
            yield
        except (ClientError, BotoCoreError) as error:
            meant = translate(error, self._at(verb, name))
            # A server that never answered is a wrong address; one that did may be restarting.
            if is_unreachable(error) and not self._answered:
                meant = UserError(str(meant))
            self._answered |= isinstance(error, ClientError)
            raise meant from error
        self._answered = True


class _Ranges(io.RawIOBase):
    """An object as a seekable raw stream: one ranged GET a read."""

    def __init__(self, store: S3Store, key: str, size_bytes: int) -> None:
        self._store, self._key, self._size = store, key, size_bytes
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"seek to {origin + offset}: before the start of {self._key}")
        self._at = origin + offset
        return self._at

    def readinto(self, buffer: Any, /) -> int:
        stop = min(self._at + len(buffer), self._size)
        data = self._store.read_range(self._key, self._at, stop)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _is_amazon(endpoint_url: str) -> bool:
    host = urlsplit(endpoint_url).hostname or ""
    return host.endswith((".amazonaws.com", ".amazonaws.com.cn"))


def check_endpoint(url: str) -> str:
    """The endpoint URL if it is one and holds no credentials; UserError otherwise."""
    address = urlsplit(url)
    if "@" in url:
        raise UserError(
            "the endpoint URL must not hold credentials: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"
        )
    if address.scheme not in ("http", "https") or not address.hostname:
        raise UserError(f"endpoint {url!r}: write http://host:port or https://host")
    return url


def _clients(config: StoreConfig) -> tuple[S3Client, S3Client]:
    """A client that retries and one that does not.

    Both also suit servers that know neither bucket host names nor the newer checksums.
    """

    def client(addressing: Literal["auto", "path"], tries: int) -> S3Client:
        return session.client(
            "s3",
            endpoint_url=config.endpoint_url,
            region_name=config.region or session.region_name or "us-east-1",
            config=Config(
                signature_version="s3v4",
                s3={"addressing_style": addressing},
                retries={"mode": "standard", "total_max_attempts": tries},
                connect_timeout=10,
                read_timeout=60,
                max_pool_connections=32,
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )

    try:
        session = boto3.Session()
        retried = client("auto", _REQUEST_TRIES)
        check_endpoint(retried.meta.endpoint_url)
        if _is_amazon(retried.meta.endpoint_url):
            return retried, client("auto", 1)
        return client("path", _REQUEST_TRIES), client("path", 1)
    except BotoCoreError as error:
        raise translate(error, f"opening {config.uri}") from error
    except ValueError:  # an endpoint that is no URL; the message would quote it
        raise UserError(
            f"opening {config.uri}: the endpoint is not a URL: correct --endpoint-url or "
            "AWS_ENDPOINT_URL_S3"
        ) from None
