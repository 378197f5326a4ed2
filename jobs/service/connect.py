"""The one place where the command line gets its job service."""

from __future__ import annotations

from jobs.service.api import JobService
from jobs.service.core import StoreService
from jobs.service.store_options import StoreOptions

PATIENCE_S = 5.0  # for a second look at a sign of life that seems old: servers give one every 2 s


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
    if server is not None:
        from jobs.service.remote import HttpService  # a command that has a store needs no HTTP

        return HttpService(server, token)
    return StoreService(where.opened(probe=writes), patience_s=PATIENCE_S)
