"""What each kind of S3 refusal means, with a real client against scripted replies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cluster.errors import ClusterError, CommitStateUnknown, Fatal, NotFound, UserError
from cluster.storage.backoff import Backoff
from cluster.storage.object_store import Encryption, StoreConfig
from cluster.storage.open import open_store
from cluster.storage.s3 import S3Store

SECRET = "s3cr3t-do-not-print"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-access-key-id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


class Script(ThreadingHTTPServer):
    """Answers request n with reply n, a status and an S3 error code; then 200 for ever."""

    def __init__(self, replies: list[tuple[int, str]]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies = replies
        self.requests: list[tuple[str, str, bool]] = []  # method, path, conditional
        self.heard: list[dict[str, str]] = []  # each request's headers, in lower case
        self.own_headers: dict[str, str] = {}  # go with every reply

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def store(self, *, single_writer: bool = False) -> S3Store:
        config = StoreConfig("s3://bucket/pre", self.url, single_writer=single_writer)
        return S3Store(config, backoff=Backoff(attempts=3, sleep=lambda _: None))


class _Handler(BaseHTTPRequestHandler):
    server: Script
    protocol_version = "HTTP/1.1"

    def _reply(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        conditional = self.headers.get("If-None-Match") == "*"
        self.server.requests.append((self.command, self.path, conditional))
        self.server.heard.append({name.lower(): text for name, text in self.headers.items()})
        status, code = self.server.replies.pop(0) if self.server.replies else (200, "")
        body = (
            f"<Error><Code>{code}</Code><Message>{SECRET}</Message></Error>".encode()
            if code
            else b""
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, text in self.server.own_headers.items():
            self.send_header(name, text)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = _reply

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def script(*replies: tuple[int, str]) -> Iterator[Script]:
    with Script(list(replies)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "code", "kind", "said"),
    [
        (403, "AccessDenied", UserError, "grant"),
        (403, "SomethingNew", UserError, "grant"),
        (403, "InvalidAccessKeyId", UserError, "AWS_ACCESS_KEY_ID"),
        (403, "SignatureDoesNotMatch", UserError, "AWS_SECRET_ACCESS_KEY"),
        (403, "RequestTimeTooSkewed", UserError, "clock"),
        (400, "ExpiredToken", UserError, "renew"),
        (400, "InvalidToken", UserError, "AWS_SESSION_TOKEN"),
        (400, "AuthorizationHeaderMalformed", UserError, "AWS_REGION"),
        (404, "NoSuchBucket", UserError, "create it"),
        (404, "NoSuchKey", NotFound, "no such object"),
        (507, "InsufficientStorage", UserError, "full"),
        (400, "MalformedXML", Fatal, "400 MalformedXML"),
        (501, "NotImplemented", Fatal, "501 NotImplemented"),
    ],
)
def test_refusals_name_object_endpoint_and_mend(
    status: int, code: str, kind: type[ClusterError], said: str
) -> None:
    # A listing, by which a forbidden key is distinguished from a missing one, is refused too.
    with script((status, code), (status, code)) as server, pytest.raises(kind) as refused:
        server.store().get("the/key")
    text = str(refused.value)
    assert said in text
    assert f"GET s3://bucket/pre/the/key at {server.url}" in text
    assert SECRET not in text
    assert "the-access-key-id" not in text


@pytest.mark.parametrize(
    ("status", "code"),
    [(409, "ConditionalRequestConflict"), (500, "InternalError"), (503, "SlowDown"),
     (400, "RequestTimeout"), (429, "TooManyRequests")],
)  # fmt: skip
def test_a_conditional_write_is_tried_again_then_unknown(status: int, code: str) -> None:
    with script((status, code)) as server:
        assert server.store().put_if_absent("k", b"")
        assert server.requests == [("PUT", "/bucket/pre/k", True)] * 2
    with script(*[(status, code)] * 3) as server:
        with pytest.raises(CommitStateUnknown, match=rf"pre/k .*after 3 tries.*{code}"):
            server.store().put_if_absent("k", b"")
        assert len(server.requests) == 3


def test_a_refused_condition_means_it_exists() -> None:
    with script((412, "PreconditionFailed")) as server:
        assert not server.store().put_if_absent("k", b"")


def test_a_server_that_knows_no_conditions_is_refused_or_written_plainly() -> None:
    unsupported = (501, "NotImplemented")
    with script(unsupported) as server, pytest.raises(UserError, match="single_writer"):
        open_store("s3://bucket/pre", endpoint_url=server.url)
    with script((404, ""), unsupported) as server:
        assert server.store(single_writer=True).put_if_absent("k", b"")
        assert [(m, c) for m, _, c in server.requests] == [
            ("HEAD", False), ("PUT", True), ("PUT", False)
        ]  # fmt: skip


def test_deleting_what_is_not_there_is_fine_on_servers_that_say_404() -> None:
    with script((404, "NoSuchKey")) as server:
        server.store().delete("k")


@pytest.mark.parametrize("sse", ["aws:kms", "aws:kms:dsse"])
def test_encryption_by_a_key_is_asked_for_with_every_write(sse: Encryption) -> None:
    config = StoreConfig("s3://bucket/pre", sse=sse, sse_kms_key="key-1")
    with script() as server:
        server.own_headers = {"x-amz-server-side-encryption": sse}
        store = S3Store(replace(config, endpoint_url=server.url))
        store.adapt("probe", b"")
        store.put("k", b"")
        store.put_if_absent("k2", b"")
        for heard in server.heard:
            assert heard["x-amz-server-side-encryption"] == sse
            assert heard["x-amz-server-side-encryption-aws-kms-key-id"] == "key-1"
            assert heard["x-amz-checksum-crc32"] == "AAAAAA=="


def test_a_server_that_takes_no_notice_of_encryption_is_refused() -> None:
    with script() as server, pytest.raises(UserError, match="not --sse aws:kms: leave it out"):
        open_store("s3://bucket/pre", endpoint_url=server.url, sse="aws:kms")


def test_the_words_of_a_server_are_shown_without_the_credentials() -> None:
    with script((400, "InvalidRequest")) as server, pytest.raises(Fatal) as refused:
        server.store().put("k", b"")
    assert "400 InvalidRequest: ***" in str(refused.value)
