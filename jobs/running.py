"""Follow a run to its end, and stop it cleanly when asked to."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cluster.actors.options import ModelWork, RunOptions, RunPlan
from cluster.clock import utc_now
from cluster.progress import Snapshot
from cluster.scheduler.terms import JobTerms
from cluster.storage.object_store import ObjectStore
from cluster.types import JobRecord
from jobs.result import JobResult, result_of

OnSnapshot = Callable[[Snapshot], None]
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def run(
    record: JobRecord,
    store: ObjectStore,
    options: RunOptions,
    facts: ModelWork,
    begin: Callable[[], None],
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Run a job to its end.

    facts: of its model, by which unmeasured hardware is judged.
    begin: called once Ray is up: what it writes to the store, a Ray that does not start leaves
        unwritten.

    Ctrl-C (SIGINT) or SIGTERM stops it: what is generated is still committed, the rest given up,
    and the result's state is ``stopped``. A second Ctrl-C raises KeyboardInterrupt at once.
    """
    with _stop_requests() as stop:  # before Ray: its start is no good moment for an exception
        from cluster.actors.launch import job_run  # Ray takes a second to import

        last: Snapshot | None = None
        with job_run(plan_of(record, facts), store.config, options) as job:
            begin()
            for last in job:
                if on_snapshot is not None:
                    on_snapshot(last)
                if stop.is_set():
                    job.stop()
                    stop.clear()
    assert last is not None  # the coordinator's first snapshot comes before its end
    return result_of(last, store.config.uri, record, utc_now())


def plan_of(record: JobRecord, facts: ModelWork) -> RunPlan:
    """The job as the scheduler is to see it from now on."""
    spec, workload = record.spec, record.workload
    deadline_s = spec.get("deadline")
    if deadline_s is not None:
        deadline_s = float(deadline_s) - (utc_now() - record.submitted_at).total_seconds()
    terms = JobTerms(
        job_id=workload.job_id,
        model=workload.model_rev,
        images=workload.count,
        shard_images=workload.shard_images,
        owner=record.owner,
        priority=spec.get("priority", 0),
        deadline_s=deadline_s,
        objective=spec.get("objective", "energy"),
        energy_budget_j=spec.get("energy_budget"),
    )
    return RunPlan(workload, terms, facts)


@contextmanager
def _stop_requests() -> Iterator[threading.Event]:
    """An event that the first SIGINT or SIGTERM sets; after it they act as without this.

    Outside the main thread, which alone hears signals, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.getsignal(number) for number in STOP_SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(*_: object) -> None:
        restore()
        stop.set()

    for number in STOP_SIGNALS:
        signal.signal(number, note)
    try:
        yield stop
    finally:
        restore()
