"""What every request passes before the app: limits of its body, and, where no tokens are in use,
that it does not come from a page in a browser. Pure ASGI, so that streams stay streams."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cluster.clock import monotonic_s
from jobs.server.metrics import Metrics
from jobs.server.options import HttpOptions
from jobs.server.problems import Refusal

_SAFE = {
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
}


class Gate:
    """open_to_all: no tokens are in use. Then anything that a browser could be made to send is
    refused: a foreign ``Origin``, and a ``Host`` that is not this machine (DNS rebinding)."""

    def __init__(
        self, app: ASGIApp, options: HttpOptions, metrics: Metrics, *, open_to_all: bool
    ) -> None:
        self._app, self._options, self._metrics = app, options, metrics
        self._open_to_all = open_to_all

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = monotonic_s()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _SAFE.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
                route = getattr(scope.get("route"), "path", "none")
                took_s = monotonic_s() - began_s
                self._metrics.answered(scope["method"], route, message["status"], took_s)
            await send(message)

        refused = self._refusal(Headers(scope=scope))
        if refused is not None:
            await refused.response()(scope, receive, counted)
            return
        await self._app(scope, self._bounded(receive), counted)

    def _refusal(self, headers: Headers) -> Refusal | None:
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15:
            return Refusal(400, "bad_request", "Content-Length is no number of bytes; correct it")
        if int(length) > self._options.body_bytes:
            return self._too_large()
        if self._open_to_all:
            host, origin = headers.get("host", ""), headers.get("origin")
            if not is_loopback_name(_name(f"//{host}")):
                detail = "without tokens the server is called by 127.0.0.1 or localhost only"
                return Refusal(403, "forbidden", detail)
            if origin is not None and urlsplit(origin).netloc != host:
                detail = "without tokens no page of another origin is answered; use a token"
                return Refusal(403, "forbidden", detail)
        return None

    def _too_large(self) -> Refusal:
        most = self._options.body_bytes
        return Refusal(413, "too_large", f"the body has more than {most} bytes; send less")

    def _bounded(self, receive: Receive) -> Receive:
        """The same body, unless it is too large or, from when it is first asked for, too slow."""
        so_far, whole, until_s = 0, False, 0.0

        async def bounded() -> Message:
            nonlocal so_far, whole, until_s
            if whole:
                return await receive()  # waits for the client to go away
            until_s = until_s or monotonic_s() + self._options.body_s
            try:
                message = await asyncio.wait_for(receive(), max(0.001, until_s - monotonic_s()))
            except TimeoutError:
                raise HTTPException(
                    408, f"the body took more than {self._options.body_s:g} s; send it faster",
                    headers={"Connection": "close"},
                ) from None  # fmt: skip
            if message["type"] == "http.request":
                so_far += len(message.get("body", b""))
                whole = not message.get("more_body", False)
                if so_far > self._options.body_bytes:
                    most = self._options.body_bytes
                    raise HTTPException(
                        413, f"the body has more than {most} bytes; send less",
                        headers={"Connection": "close"},
                    )  # fmt: skip
            return message

        return bounded


def is_loopback_name(name: str) -> bool:
    """Whether a host name or address means this machine, without asking DNS."""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _name(address: str) -> str:
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""
