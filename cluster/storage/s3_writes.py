"""Writing one object to S3: its checksum, its encryption, and in parts when it is large."""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from cluster.storage.chunks import Chunks
from cluster.storage.object_store import Checksum, StoreConfig
from cluster.storage.s3_body import Body

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PART_BYTES = 16 * 2**20
_PART_THREADS = 4


def encryption_of(config: StoreConfig) -> dict[str, Any]:
    """What starts an object with the config's server-side encryption."""
    options = {"ServerSideEncryption": config.sse, "SSEKMSKeyId": config.sse_kms_key}
    return {name: value for name, value in options.items() if value}


def checksum_of(kind: Checksum | None, data: bytes | Chunks) -> dict[str, Any]:
    """What goes with the data so that the server can verify it.

    As plain headers: boto3's own way is a trailer over TLS, which many servers do not know.
    """
    buffers: Iterable[bytes | memoryview] = data.buffers if isinstance(data, Chunks) else (data,)
    if kind == "crc32":
        crc = 0
        for buffer in buffers:
            crc = zlib.crc32(buffer, crc)
        return {"ChecksumCRC32": base64.b64encode(crc.to_bytes(4, "big")).decode()}
    if kind == "md5":
        digest = hashlib.md5(usedforsecurity=False)
        for buffer in buffers:
            digest.update(buffer)
        return {"ContentMD5": base64.b64encode(digest.digest()).decode()}
    return {}


def put_whole(
    client: S3Client,
    config: StoreConfig,
    bucket: str,
    name: str,
    data: bytes | Chunks,
    **options: Any,
) -> Any:
    """One PUT of the object; the reply."""
    options |= encryption_of(config) | checksum_of(config.checksum, data)
    return client.put_object(Bucket=bucket, Key=name, Body=_body(data), **options)


def put_in_parts(
    client: S3Client, config: StoreConfig, bucket: str, name: str, data: Chunks
) -> None:
    """A multipart upload, some parts at a time; given up as a whole if one fails."""
    where: dict[str, Any] = {"Bucket": bucket, "Key": name}
    options = where | encryption_of(config)
    if config.checksum == "crc32":
        options["ChecksumAlgorithm"] = "CRC32"
    upload = where | {"UploadId": client.create_multipart_upload(**options)["UploadId"]}

    def send(start: int) -> dict[str, Any]:
        part, number = data.part(start, start + PART_BYTES), start // PART_BYTES + 1
        checksum = checksum_of(config.checksum, part)
        reply = client.upload_part(**upload, PartNumber=number, Body=_body(part), **checksum)
        checksum.pop("ContentMD5", None)  # which is of the request only, not of the object
        return {"PartNumber": number, "ETag": reply["ETag"], **checksum}

    try:
        with ThreadPoolExecutor(_PART_THREADS) as pool:
            parts: Any = list(pool.map(send, range(0, data.size_bytes, PART_BYTES)))
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts})
    except BaseException:
        with suppress(ClientError, BotoCoreError):
            client.abort_multipart_upload(**upload)
        raise


def _body(data: bytes | Chunks) -> Any:
    return data if isinstance(data, bytes) else Body(data)
