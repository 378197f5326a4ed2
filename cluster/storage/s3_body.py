"""How botocore sends chunks: by whole buffers, signed with the digest that is known already.

Of a plain body botocore computes the SHA-256 for each request's signature, retries included, over
http and (with a checksum of our own in the headers) over TLS. urllib3 reads a file 16 KB at a time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth

from cluster.storage.chunks import Chunks
from cluster.storage.position import Position

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BLOCK_BYTES = 1 << 20  # of one send; few enough calls, and a digest's or a socket's usual measure
_SIGNER = "un0-s3v4"


class Body(Position):
    """Chunks as a request's body. Reads may be longer than asked for, and are views, not copies:
    what sends them takes any buffer, and would otherwise ask for 16 KB at a time."""

    def __init__(self, chunks: Chunks) -> None:
        super().__init__(chunks.size_bytes)
        self.chunks = chunks

    def __len__(self) -> int:
        return self.chunks.size_bytes

    def read(self, size: int = -1) -> memoryview | bytes:  # noqa: ARG002 (see above)
        """The next bytes, of one buffer; empty at the end."""
        block = next(self.chunks.pieces(self._at, self._at + BLOCK_BYTES), b"")
        self._at += len(block)
        return block


class _SignedByKnownDigest(S3SigV4Auth):
    """AWS Signature Version 4 of a whole, signed payload, as botocore's own but for the source of
    the digest."""

    def payload(self, request: Any) -> str:
        body = request.body
        return body.chunks.sha256() if isinstance(body, Body) else str(super().payload(request))


AUTH_TYPE_MAPS[_SIGNER] = _SignedByKnownDigest


def send_bodies(client: S3Client) -> None:
    """Make the client's uploads of ``Body`` cost no second digest and no round trip more."""
    events: Any = client.meta.events  # whose stubs know of no handler that returns something
    for operation in ("PutObject", "UploadPart"):
        events.register_first(f"choose-signer.s3.{operation}", _choose_signer)
    events.register_last("before-call.s3", _expect_nothing)  # after what sets it, of that very name


def _choose_signer(signature_version: str, **_: Any) -> str | None:
    """None leaves the choice to botocore: of unsigned requests, S3 Express and other signatures."""
    return _SIGNER if signature_version in ("v4", "s3v4") else None


def _expect_nothing(params: Any, **_: Any) -> None:
    """A file would be sent after a wait for ``100 Continue``, which some proxies never send: a
    second is lost on each. Bytes are sent without."""
    params["headers"].pop("Expect", None)
