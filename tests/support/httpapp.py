"""The HTTP API over a service in memory: called in this process, or served on a port."""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pytest
from starlette.testclient import TestClient

from cluster.clock import utc_now
from cluster.storage.object_store import ObjectStore
from jobs.server import http
from jobs.server.app import create_app
from jobs.server.audit import Audit
from jobs.server.context import Auth
from jobs.server.http import AuthOptions, run_http
from jobs.server.options import HttpOptions
from jobs.server.tokens import Tokens
from jobs.service.api import JobService
from tests.support.memory_service import MemoryService

QUICK = HttpOptions(status_s=0.01, token_s=0.0, poll_s=0.01, failures=100_000, reads=100_000)
ALL = ("jobs:read", "jobs:write", "results:read")
HOST = "http://127.0.0.1"


@dataclass
class World:
    """An app, what is behind it, and a client that calls it without a network."""

    app: Any
    service: Any
    store: ObjectStore
    tokens: Tokens
    audit: Audit
    client: Any

    def token(
        self,
        owner: str = "ada",
        scopes: Collection[str] = ALL,
        expires_at: datetime | None = None,
    ) -> str:
        return self.tokens.create(owner, scopes, utc_now(), by="test", expires_at=expires_at)[0]

    def headers(self, owner: str = "ada", scopes: Collection[str] = ALL) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token(owner, scopes)}"}


@contextmanager
def world(
    store: ObjectStore,
    service: JobService | None = None,
    *,
    no_auth: bool = False,
    options: HttpOptions = QUICK,
) -> Iterator[World]:
    """A fresh app over the store, whose jobs are in memory unless a service is given."""
    service = service or MemoryService(store.config.uri)
    tokens, audit = Tokens(store), Audit(store)
    app = create_app(service, store, Auth(None if no_auth else tokens, audit), options)
    client = TestClient(app, HOST, raise_server_exceptions=False)
    with client:
        yield World(app, service, store, tokens, audit, client)


@contextmanager
def served(
    store: ObjectStore,
    service: JobService,
    monkeypatch: pytest.MonkeyPatch,
    *,
    no_auth: bool = True,
    options: HttpOptions = QUICK,
) -> Iterator[str]:
    """The API on a port of this machine, run by ``run_http``; its address."""
    monkeypatch.setattr(http, "StoreService", lambda _, **__: service)
    ready, stop, addresses = threading.Event(), threading.Event(), list[str]()

    def on_ready(url: str) -> None:
        addresses.append(url)
        ready.set()

    thread = threading.Thread(
        target=run_http,
        args=("127.0.0.1", 0, store, AuthOptions(no_auth), stop.is_set),
        kwargs={"on_ready": on_ready, "options": options},
        daemon=True,
    )
    thread.start()
    assert ready.wait(30)
    try:
        yield addresses[0]
    finally:
        stop.set()
        thread.join(30)
        assert not thread.is_alive()
