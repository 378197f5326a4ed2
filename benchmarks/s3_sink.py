"""For ``uploads.py``: S3 servers that cost next to nothing, so that their clients' cost shows."""

from __future__ import annotations

import io
import multiprocessing
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

LATE_S = {"sink": 0.0, "sink-tls": 0.0, "sink-slow": 0.2}  # kinds, and how long a reply takes


@contextmanager
def sinking(kind: str) -> Iterator[tuple[str, dict[str, str]]]:
    """A sink in a process of its own: its URL, and the environment for its clients."""
    environment = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}
    with ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
        certificate = None
        if kind == "sink-tls":
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            certificate = f"{directory}/certificate.pem"
            command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x",
                       "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", certificate,
                       "-out", f"{certificate}.crt"]  # fmt: skip
            subprocess.run(command, check=True, capture_output=True)
            environment["AWS_CA_BUNDLE"] = f"{certificate}.crt"
        process = multiprocessing.get_context("fork").Process(
            target=sink, args=(listener, certificate, LATE_S[kind]), daemon=True
        )
        process.start()
        stack.callback(process.terminate)
        port = listener.getsockname()[1]
        yield f"http{'s' if certificate else ''}://127.0.0.1:{port}", environment


def sink(listener: socket.socket, certificate: str | None, late_s: float) -> None:
    """An S3 server that believes everything and keeps nothing; over TLS with a certificate."""
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if certificate else None
    if tls and certificate:
        tls.load_cert_chain(f"{certificate}.crt", certificate)

    def serve(client: socket.socket) -> None:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            client = tls.wrap_socket(client, server_side=True)
        room = memoryview(bytearray(1 << 20))
        reader = io.BufferedReader(client.makefile("rb", 0), 1 << 16)  # type: ignore[type-var]
        while line := reader.readline():
            headers = dict(_headers(reader))
            left = int(headers.get(b"content-length", 0))
            if b"expect" in headers:
                client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            if left:
                left -= len(reader.read(min(len(reader.peek()), left)))
            while left:
                left -= client.recv_into(room[:left])
            time.sleep(late_s)
            body = _answer(line)
            head = f'HTTP/1.1 200 OK\r\nETag: "0"\r\nContent-Length: {len(body)}\r\n\r\n'
            client.sendall(head.encode() + body)

    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client,), daemon=True).start()


def _headers(reader: io.BufferedReader) -> Iterator[tuple[bytes, bytes]]:
    while (line := reader.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        yield name.lower(), value.strip()


def _answer(line: bytes) -> bytes:
    """What starts and ends an upload in parts, as the CRT makes it."""
    kind = b"InitiateMultipartUploadResult" if b"?uploads" in line else b"X"
    return (
        b"<%b><UploadId>1</UploadId><ETag>0</ETag></%b>" % (kind, kind) if b"POST" in line else b""
    )
