"""Uploads of chunks: every store writes them whole and unjoined; S3 signs the digest once known."""

from __future__ import annotations

import base64
import hashlib
import os
import uuid
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.auth import SigV4Auth

from cluster.errors import ClusterError
from cluster.storage import chunks as chunks_module
from cluster.storage import s3, s3_client, s3_writes
from cluster.storage.chunks import Chunks
from cluster.storage.dev_s3 import DevS3
from cluster.storage.object_store import PUTS_IN_FLIGHT, ObjectStore
from cluster.storage.open import open_store
from cluster.storage.s3_body import Body
from tests.cluster.storage.test_s3_replies import script
from tests.support.juicefs import JuiceFSGateway

PART = 5 * 2**20  # the smallest that S3 allows


@pytest.fixture(params=["local", "seaweedfs", "juicefs"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return open_store(str(tmp_path / "store"))
    if request.param == "seaweedfs":
        return request.getfixturevalue("s3_store")
    server = request.getfixturevalue("juicefs")
    return open_store(f"{server.uri}/{uuid.uuid4().hex}", single_writer=True)


@pytest.fixture
def unjoined(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joining chunks fails."""

    def refuse(_: Chunks) -> bytes:
        raise AssertionError("joined")

    monkeypatch.setattr(Chunks, "__bytes__", refuse)


def pieces(*sizes: int) -> list[bytes]:
    return [os.urandom(size) for size in sizes]


@pytest.mark.usefixtures("unjoined")
def test_what_is_put_in_pieces_comes_back_as_one(store: ObjectStore) -> None:
    for sizes in [(), (0,), (1,), (3, 0, 70_000, 1), (3_000_000, 20, 2_000_000)]:
        buffers = pieces(*sizes)
        store.put("x", Chunks(buffers))
        assert store.get("x") == b"".join(buffers)


def test_several_puts_at_once_do_not_mix(store: ObjectStore) -> None:
    data = {f"x/{n}": pieces(n, 400_000, 7) for n in range(2 * PUTS_IN_FLIGHT)}
    with ThreadPoolExecutor(PUTS_IN_FLIGHT) as pool:
        list(pool.map(lambda key: store.put(key, Chunks(data[key])), data))
    assert {key: store.get(key) for key in data} == {k: b"".join(v) for k, v in data.items()}


@pytest.mark.usefixtures("unjoined")
@pytest.mark.parametrize("store", ["seaweedfs", "juicefs"], indirect=True)
def test_parts_are_cut_across_pieces(store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "MULTIPART_BYTES", PART)
    monkeypatch.setattr(s3_writes, "PART_BYTES", PART)
    buffers = pieces(PART - 3, 5, PART, 100)
    store.put("x", Chunks(buffers))
    assert store.get("x") == b"".join(buffers)


def test_each_part_in_flight_has_a_connection() -> None:
    assert s3_client.POOL_CONNECTIONS >= PUTS_IN_FLIGHT * s3_writes._PART_THREADS


@pytest.mark.parametrize("kind", ["crc32", "md5", None])
def test_checksums_of_pieces_are_those_of_the_whole(kind: Any) -> None:
    buffers = pieces(10, 0, 3000, 1)
    data = b"".join(buffers)
    assert s3_writes.checksum_of(kind, Chunks(buffers)) == s3_writes.checksum_of(kind, data)
    crc, md5 = zlib.crc32(data).to_bytes(4, "big"), hashlib.md5(data).digest()
    right = {"crc32": crc, "md5": md5, None: None}[kind]
    found = s3_writes.checksum_of(kind, data).values()
    assert list(found) == ([base64.b64encode(right).decode()] if right else [])


# The signature


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


@pytest.mark.usefixtures("keys")
def test_one_digest_serves_the_commit_the_signature_and_a_retry(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    digested = []

    class Counted:
        def __init__(self) -> None:
            self._inner = hashlib.new("sha256")

        def update(self, data: memoryview) -> None:
            digested.append(len(data))
            self._inner.update(data)

        def hexdigest(self) -> str:
            return self._inner.hexdigest()

    def refuse(*_: object) -> str:
        raise AssertionError("botocore read the body for a digest of its own")

    monkeypatch.setattr(chunks_module.hashlib, "sha256", Counted)
    monkeypatch.setattr(SigV4Auth, "payload", refuse)
    chunks = Chunks(pieces(300_000, 200_000))
    digest = chunks.sha256()
    with script((503, "SlowDown")) as server:
        server.store().put("x", chunks)
        assert [heard["x-amz-content-sha256"] for heard in server.heard] == [digest, digest]
        for heard in server.heard:
            assert heard["content-length"] == "500000"
            assert "expect" not in heard  # some proxies would never answer it
            assert "transfer-encoding" not in heard
    assert digested == [300_000, 200_000]


@pytest.mark.usefixtures("keys")
def test_bytes_are_sent_as_chunks_are() -> None:
    with script() as server:
        server.store().put("x", b"some")
        assert server.heard[0]["x-amz-content-sha256"] == hashlib.sha256(b"some").hexdigest()
        assert "expect" not in server.heard[0]


def changed(body: Body, size: int = -1) -> bytes:
    """A body's reader, by which the data change on their way."""
    data = bytes(READ(body, size))
    return bytes([data[0] ^ 1]) + data[1:] if data else data


READ = Body.read


def test_a_body_changed_on_its_way_does_not_match_its_signature(
    juicefs: JuiceFSGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No checksum is sent: only the signature vouches for the body."""
    store = open_store(f"{juicefs.uri}/{uuid.uuid4().hex}", probe=False)
    assert store.config.checksum is None
    store.put("good", Chunks(pieces(100_000)))
    monkeypatch.setattr(Body, "read", changed)
    with pytest.raises(ClusterError, match="SHA256"):
        store.put("bad", Chunks(pieces(100_000)))
    monkeypatch.undo()
    monkeypatch.setattr(Chunks, "sha256", lambda _: hashlib.sha256(b"other").hexdigest())
    with pytest.raises(ClusterError, match="SHA256"):
        store.put("bad", Chunks(pieces(100_000)))
    assert [info.key for info in store.list("")] == ["good"]


def test_a_body_changed_on_its_way_does_not_match_its_checksum(
    s3_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SeaweedFS does not compare the signed digest with the body, whoever computed it."""
    assert s3_store.config.checksum == "crc32"
    monkeypatch.setattr(Body, "read", changed)
    with pytest.raises(ClusterError):
        s3_store.put("bad", Chunks(pieces(100_000)))
    assert [info.key for info in s3_store.list("")] == []


def test_a_signature_by_another_key_is_refused(s3: DevS3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    store = open_store(f"{s3.uri}/{uuid.uuid4().hex}", probe=False)
    with pytest.raises(ClusterError, match="AWS_SECRET_ACCESS_KEY"):
        store.put("x", Chunks(pieces(10)))
