"""The service over a store, imported when it is asked for: it reads models, which takes seconds."""

from __future__ import annotations

from importlib import import_module

from cluster.storage.object_store import ObjectStore
from jobs.service.api import JobService


def over_store(store: ObjectStore, *, reads_files: bool = True) -> JobService:
    """The service over a store that this process can read and write. reads_files: see
    ``StoreService``."""
    made: JobService = import_module("jobs.service.core").StoreService(
        store, reads_files=reads_files
    )
    return made
