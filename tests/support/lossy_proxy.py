"""A TCP proxy before a real server that loses chosen replies, as a failing network does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

_REPLACED = (b"connection:", b"expect:")


class LossyProxy:
    """Forwards one request a connection. ``lose(request_head)`` True: the server carries the
    request out, but its reply is thrown away and the connection closed."""

    def __init__(self, endpoint_url: str, lose: Callable[[bytes], bool]) -> None:
        address = urlsplit(endpoint_url)
        assert address.hostname
        assert address.port
        self._server = (address.hostname, address.port)
        self._lose = lose
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint_url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.lost = 0

    def __enter__(self) -> LossyProxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def answer(self, head: bytes) -> bytes | None:  # noqa: ARG002 (subclasses do)
        """The reply to give in the server's place; None: ask the server."""
        return None

    def change(self, head: bytes, reply: bytes) -> bytes:  # noqa: ARG002 (subclasses do)
        """What becomes of the server's reply."""
        return reply

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with (
            suppress(OSError),  # one side went away, and so does the other
            client,
            socket.create_connection(self._server) as server,
        ):
            self._exchange(client, server)

    def _exchange(self, client: socket.socket, server: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data:
            if not (more := client.recv(65536)):
                return
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        own = self.answer(head)
        if own is not None and b"\r\nexpect:" in head.lower():
            client.sendall(own)
            return
        if b"\r\nexpect:" in head.lower():
            client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        # Neither header is signed. The server closes, so its reply ends where the data does.
        lines = [x for x in head.split(b"\r\n") if not x.lower().startswith(_REPLACED)]
        lengths = [x for x in lines if x.lower().startswith(b"content-length:")]
        left = int(lengths[0].split(b":")[1]) - len(body) if lengths else 0
        if own is None:
            server.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
        while left > 0 and (more := client.recv(65536)):
            if own is None:
                server.sendall(more)
            left -= len(more)
        if own is not None:
            client.sendall(own)
            return
        reply = b""
        while more := server.recv(65536):
            reply += more
        reply = self.change(head, reply)
        if self._lose(head):
            self.lost += 1
        else:
            client.sendall(reply)
