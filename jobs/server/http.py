"""Run the HTTP API over a store until it is told to stop: ``python -m jobs.server.http --help``."""

from __future__ import annotations

import argparse
import asyncio
import logging
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import uvicorn

from cluster.errors import UserError
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from jobs.listening import stop_requests
from jobs.server.app import create_app
from jobs.server.audit import Audit
from jobs.server.context import Auth
from jobs.server.options import HttpOptions
from jobs.server.protocol import bounded_protocol
from jobs.server.tokens import Tokens
from jobs.service.core import StoreService

logger = logging.getLogger(__name__)

_STOP_S = 5  # for requests under way; streams of events go on where they were


@dataclass(frozen=True)
class AuthOptions:
    """no_auth: anybody who reaches the server may do anything; refused unless only this machine
    can reach it. certificate, key: files in PEM, to speak HTTPS."""

    no_auth: bool = False
    certificate: str | None = None
    key: str | None = None


def run_http(
    host: str,
    port: int,
    store: ObjectStore,
    auth: AuthOptions,
    stop: Callable[[], bool],
    *,
    on_ready: Callable[[str], None] = lambda _: None,
    options: HttpOptions | None = None,
) -> None:
    """Serve until ``stop()``, which is asked ten times a second; returns within seconds of it.

    port: 0: any that is free. on_ready: called with the address once it is served.
    Raises UserError where the address cannot be used, or not without tokens.
    """
    options = options or HttpOptions()
    with _listening(host, port, auth) as listener:
        who = Auth(None if auth.no_auth else Tokens(store), Audit(store))
        app = create_app(StoreService(store, reads_files=False), store, who, options)
        server = _Server(_config(app, auth, options), stop, lambda: on_ready(_url(listener, auth)))
        asyncio.run(server.serve(sockets=[listener]))


class _Server(uvicorn.Server):
    """uvicorn's, which leaves signals to its caller."""

    def __init__(
        self, config: uvicorn.Config, stop: Callable[[], bool], on_ready: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._stop, self._on_ready = stop, on_ready

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        self.should_exit = self.should_exit or self._stop()
        return await super().on_tick(counter)


def _config(app: Any, auth: AuthOptions, options: HttpOptions) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=bounded_protocol(options.head_s),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=options.connections,
        timeout_keep_alive=options.keep_alive_s,
        timeout_graceful_shutdown=_STOP_S,
        h11_max_incomplete_event_size=options.head_bytes,
        ssl_certfile=auth.certificate,
        ssl_keyfile=auth.key,
    )


@contextmanager
def _listening(host: str, port: int, auth: AuthOptions) -> Iterator[socket.socket]:
    """A listening socket. Its address is checked, not its name: a name may mean anything."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise UserError(f"--http {host}:{port}: {error}; give an address of this machine") from None
    family, _, _, _, address = found[0]
    if auth.no_auth and not ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise UserError(
            f"--no-auth with --http {host}: others could reach {address[0]}; leave --no-auth out "
            "and make a token with `un0 token create`, or give 127.0.0.1"
        )
    with socket.socket(family, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise UserError(
                f"--http {host}:{port}: {error.strerror}; choose another port, or 0 for any"
            ) from None
        listener.listen(2048)
        yield listener


def _url(listener: socket.socket, auth: AuthOptions) -> str:
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    return f"{'https' if auth.certificate else 'http'}://{shown}:{port}"


def host_port(text: str) -> tuple[str, int]:
    """The parts of ``HOST:PORT``. Raises UserError."""
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise UserError(f"--http {text!r}: write HOST:PORT, such as 127.0.0.1:8000")
    return host.strip("[]"), int(port)


def main() -> int:
    """Serve one store from a shell, without a supervisor: for trying the API out."""
    parser = argparse.ArgumentParser(prog="python -m jobs.server.http", description=main.__doc__)
    parser.add_argument("--store", required=True)
    parser.add_argument("--endpoint-url")
    parser.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT")
    parser.add_argument("--no-auth", action="store_true")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    try:
        store = open_store(given.store, endpoint_url=given.endpoint_url)
        with stop_requests() as stop:
            run_http(
                *host_port(given.http),
                store,
                AuthOptions(no_auth=given.no_auth),
                lambda: stop.times > 0,
                on_ready=lambda url: print(url, flush=True),
            )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
