"""The one place where the command line gets its job service."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.errors import UserError
from cluster.storage.object_store import ObjectStore
from cluster.storage.open import open_store
from jobs.defaults import DEFAULT_STORE
from jobs.service.api import JobService
from jobs.service.core import StoreService

PATIENCE_S = 5.0  # for a second look at a sign of life that seems old: servers give one every 2 s


@dataclass(frozen=True)
class StoreOptions:
    """How to open a store, as the options of commands say it (``cluster.storage.open``)."""

    uri: str = DEFAULT_STORE
    endpoint_url: str | None = None
    single_writer: bool = False
    sse: str | None = None
    sse_kms_key: str | None = None


def open_service(
    where: StoreOptions,
    *,
    server: str | None = None,
    token: str | None = None,
    writes: bool = False,
) -> JobService:
    """The service on this store.

    server, token: speak HTTP with that server instead. writes: try the store's rights first, as it
    is going to be written to. Raises UserError for a store or a server that cannot be used.
    """
    if server is not None or token is not None:
        raise UserError(
            "UN0_SERVER or UN0_TOKEN is set, and this version speaks with no server: unset them, "
            "and give --store"
        )
    return StoreService(open_at(where, writes=writes), patience_s=PATIENCE_S)


def open_at(where: StoreOptions, *, writes: bool = False) -> ObjectStore:
    """The store itself, for commands that no server answers."""
    return open_store(
        where.uri,
        endpoint_url=where.endpoint_url,
        single_writer=where.single_writer,
        sse=where.sse,
        sse_kms_key=where.sse_kms_key,
        probe=writes,
    )
