"""``un0 serve`` under way, and jobs for it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import psutil

from cluster.storage.commit import committed_shards
from cluster.storage.epoch import holder_of, newest
from cluster.storage.intents import Wanted
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import newest_run
from jobs.service.core import StoreService
from jobs.spec import JobSpec
from tests.support.cli import WAIT_S, Running

SUPERVISE = "jobs.server.supervise"


def submit_job(store: ObjectStore, job_id: str, count: int, **spec: Any) -> None:
    """A job of the service, of shards of 256 images."""
    job = JobSpec(count=count, shard_images=256, job_id=job_id, **spec)
    StoreService(store).submit(job, by="tester")


def want_job(store: ObjectStore, job_id: str, wanted: Wanted) -> None:
    """Pause, resume or cancel it."""
    service = StoreService(store)
    verb = {"run": service.resume, "pause": service.pause, "cancel": service.cancel}[wanted]
    verb(job_id, by="tester")


def committed(store: ObjectStore, job_id: str) -> int:
    """Its committed shards."""
    return len(committed_shards(store, job_id))


def state(store: ObjectStore, job_id: str) -> str:
    """Of its newest run, as last written down; empty before."""
    run = newest_run(store, job_id)
    return "" if run is None else str(run.state)


def holder(store: ObjectStore, job_id: str) -> str | None:
    """The server that has its newest claim."""
    epoch = newest(store, job_id)
    return holder_of(store, job_id, epoch) if epoch else None


def supervisor_of(serve: Running) -> psutil.Process:
    """The child of ``un0 serve`` that runs jobs, once it is there."""
    found: list[psutil.Process] = []

    def is_there() -> bool:
        found[:] = [p for p in serve.descendants() if SUPERVISE in _command(p)]
        return bool(found)

    serve.until(is_there)
    return found[0]


def until(condition: Callable[[], bool], what: str) -> float:
    """Wait for it; how long it took, in seconds."""
    began_s = time.monotonic()
    while not condition():
        assert time.monotonic() - began_s < WAIT_S, f"waited in vain for {what}"
        time.sleep(0.1)
    return time.monotonic() - began_s


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""
