"""Which store, as options of commands and servers say it. Quick to import."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from jobs.defaults import DEFAULT_STORE

if TYPE_CHECKING:
    from cluster.storage.object_store import ObjectStore


@dataclass(frozen=True)
class StoreOptions:
    """See ``cluster.storage.open.open_store``."""

    store: str = DEFAULT_STORE
    endpoint_url: str | None = None
    single_writer: bool = False
    sse: str | None = None
    sse_kms_key: str | None = None

    def opened(self, *, probe: bool = True) -> ObjectStore:
        """The store. probe: try its rights first, as it is going to be written to. Raises UserError
        if it cannot be used."""
        from cluster.storage.open import open_store

        return open_store(
            self.store,
            endpoint_url=self.endpoint_url,
            single_writer=self.single_writer,
            sse=self.sse,
            sse_kms_key=self.sse_kms_key,
            probe=probe,
        )
