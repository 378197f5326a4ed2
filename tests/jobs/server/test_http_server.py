"""The server on its port: where it may listen, what slow clients get, and how it ends."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from urllib.parse import urlsplit

import pytest

from cluster.errors import UserError
from cluster.storage.object_store import ObjectStore
from jobs.server.http import AuthOptions, host_port, run_http
from jobs.service.remote import HttpService
from jobs.service.views import JobFilter
from jobs.spec import JobSpec
from tests.support.httpapp import QUICK, served
from tests.support.memory_service import MemoryService

IMPATIENT = replace(QUICK, body_s=0.3, head_s=0.3, head_bytes=4096)


def talk(url: str, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send the parts; what comes back until the server closes."""
    address = urlsplit(url)
    assert address.hostname
    assert address.port
    with socket.create_connection((address.hostname, address.port), timeout=30) as link:
        for part in parts:
            link.sendall(part)
            threading.Event().wait(pause_s)
        answer = b""
        while more := link.recv(65536):
            answer += more
    return answer


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])
def test_without_tokens_it_listens_to_this_machine_only(local: ObjectStore, host: str) -> None:
    with pytest.raises(UserError, match="un0 token create"):
        run_http(host, 0, local, AuthOptions(no_auth=True), lambda: True)


def test_an_address_that_is_taken_or_none_is_refused(local: ObjectStore) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match="choose another port"):
            run_http("127.0.0.1", port, local, AuthOptions(), lambda: True)
    with pytest.raises(UserError, match="give an address of this machine"):
        run_http("no.such.host.invalid", 0, local, AuthOptions(), lambda: True)


def test_an_address_is_read_as_host_and_port() -> None:
    assert host_port("127.0.0.1:8000") == ("127.0.0.1", 8000)
    assert host_port("[::1]:0") == ("::1", 0)
    for text in ("8000", ":8000", "host:", "host:x", "host:70000", ""):
        with pytest.raises(UserError, match="write HOST:PORT"):
            host_port(text)


def test_slow_heads_slow_bodies_and_large_heads_are_cut_off(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = b"Host: 127.0.0.1\r\n"
    post = b"POST /v1/jobs HTTP/1.1\r\nContent-Type: application/json\r\n" + host
    with served(local, MemoryService(), monkeypatch, options=IMPATIENT) as url:
        assert talk(url, b"GET /healthz HTTP/1.1\r\nHo") == b""  # closed without an answer
        assert talk(url, b"") == b""
        slow = talk(url, post + b"Content-Length: 100\r\n\r\n{", b'"', pause_s=0.1)
        assert slow.startswith(b"HTTP/1.1 408 ")
        assert b"application/problem+json" in slow
        endless = talk(url, post + b"Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        assert endless.startswith(b"HTTP/1.1 408 ")
        big = b"GET / HTTP/1.1\r\n" + host + b"X: " + b"a" * 10_000
        assert talk(url, big).startswith(b"HTTP/1.1 400 ")
        declared = talk(url, post + b"Content-Length: 1000000000\r\nConnection: close\r\n\r\n")
        assert declared.startswith(b"HTTP/1.1 413 ")
        smuggled = post + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        assert talk(url, smuggled + b"GET /x HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 4")
        assert talk(url, b"\x16\x03\x01\x02\x00").startswith(b"HTTP/1.1 400 ")
        # It goes on for everybody else.
        assert HttpService(url).jobs(JobFilter()).jobs == ()


def test_a_stream_of_events_does_not_hold_up_the_end(
    local: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = MemoryService()
    service.submit(JobSpec(count=1, job_id="job"), by="ada")
    monkeypatch.setattr("jobs.server.http._STOP_S", 0)
    with served(local, service, monkeypatch) as url:
        found = HttpService(url, patience_s=0.1).follow("job")
        next(found)
    # ``served`` has seen its thread end
