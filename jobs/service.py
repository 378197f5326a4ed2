"""Submit, run and resume jobs. The truth about a job is in the store, never here."""

from __future__ import annotations

import getpass
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.actors.options import RunOptions
from cluster.clock import utc_now
from cluster.errors import UserError
from cluster.progress import Snapshot
from cluster.storage.commit import reopen
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore, StoreConfig
from cluster.storage.open import open_store
from cluster.storage.reader import load_job
from cluster.types import Energy, JobRecord, Manifest
from jobs.sharding import ModelFacts, plan
from jobs.spec import JobSpec
from un0.catalog import DEFAULT_MODEL

DEFAULT_STORE = "./un0-data"
OnSnapshot = Callable[[Snapshot], None]


@dataclass(frozen=True)
class JobResult:
    """How a run ended. Joules are of the whole job's commits; None where unknown.

    seconds: since the first replica was ready. startup_s: before that. images: committed in all.
    generate_share: share of the replicas' time in which their devices generated.
    """

    job_id: str
    store: str
    state: str
    images: int
    seconds: float
    images_per_s: float
    energy_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    energy_quality: str
    energy_method: str
    overhead_j: float | None
    generate_share: float | None
    startup_s: float
    retries: int
    reason: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def generate(
    spec: JobSpec,
    store: str = DEFAULT_STORE,
    *,
    endpoint_url: str | None = None,
    replicas: int | None = None,
    address: str | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Submit a job and run it to its end.

    Raises UserError, or un0's InputError and ModelFormatError, for what the caller can mend.
    """
    opened = open_store(store, endpoint_url=endpoint_url)
    return run(submit(spec, opened), opened, RunOptions(replicas, address), on_snapshot)


def resume(
    job_id: str,
    store: str = DEFAULT_STORE,
    *,
    endpoint_url: str | None = None,
    replicas: int | None = None,
    address: str | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Run what a job still lacks. A job that has ended with everything ends at once."""
    opened = open_store(store, endpoint_url=endpoint_url)
    record = load_job(opened, job_id)
    manifest = reopen(opened, job_id)
    if manifest is not None and manifest.state == "completed":
        return _completed_before(manifest, opened.config)
    return run(record, opened, RunOptions(replicas, address), on_snapshot)


def submit(spec: JobSpec, store: ObjectStore) -> JobRecord:
    """Make every choice the spec leaves open and write the job down. Nothing runs yet."""
    workload = plan(spec, model_facts(spec.model or DEFAULT_MODEL))
    record = JobRecord(
        workload=workload,
        spec=spec.model_dump(mode="json", exclude_none=True),
        owner=spec.owner or getpass.getuser(),
        submitted_at=utc_now(),
    )
    key = JobLayout(workload.job_id).spec
    if not store.put_if_absent(key, record.model_dump_json(indent=2).encode()):
        raise UserError(
            f"job {workload.job_id!r} is already in {store.config.uri}; continue it with "
            f"`un0 resume {workload.job_id}`, or choose another --job-id"
        )
    return record


def model_facts(name: str) -> ModelFacts:
    """What planning needs of a model by name or path; a path is made absolute for the replicas."""
    from un0 import load_model

    path = Path(name)
    located = str(path.resolve()) if path.is_file() else name
    model = load_model(located)
    config = model.config
    return ModelFacts(located, model.rev, config.num_classes, config.image_size, model.labels)


def run(
    record: JobRecord,
    store: ObjectStore,
    options: RunOptions,
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Run a submitted job to its end.

    Ctrl-C (SIGINT) stops it: what is generated is still committed, the rest given up, and the
    result's state is ``stopped``. A second one raises KeyboardInterrupt at once.
    """
    from cluster.actors.launch import job_run  # Ray takes a second to import

    last: Snapshot | None = None
    with job_run(record.workload, store.config, options) as job, _first_interrupt() as stop:
        for last in job:
            if on_snapshot is not None:
                on_snapshot(last)
            if stop.is_set():
                job.stop()
                stop.clear()
    assert last is not None  # the coordinator's first snapshot comes before its end
    return _result(last, store.config)


@contextmanager
def _first_interrupt() -> Iterator[threading.Event]:
    """An event that the first SIGINT sets; from then on SIGINT is KeyboardInterrupt again.

    Outside the main thread, which alone hears signals, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.getsignal(signal.SIGINT)

    def note(*_: object) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        stop.set()

    signal.signal(signal.SIGINT, note)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)


def _result(snapshot: Snapshot, store: StoreConfig) -> JobResult:
    return JobResult(
        job_id=snapshot.job_id,
        store=store.uri,
        state=snapshot.state,
        images=snapshot.committed_images,
        seconds=round(snapshot.run_s, 3),
        images_per_s=round(snapshot.images_per_s, 2),
        **_energy_figures(snapshot.energy, snapshot.overhead),
        generate_share=snapshot.generate_share,
        startup_s=round(snapshot.startup_s, 3),
        retries=snapshot.retries,
        reason=snapshot.reason,
    )


def _completed_before(manifest: Manifest, store: StoreConfig) -> JobResult:
    return JobResult(
        job_id=manifest.job_id,
        store=store.uri,
        state=manifest.state,
        images=manifest.images,
        seconds=0.0,
        images_per_s=0.0,
        **_energy_figures(manifest.energy, manifest.overhead),
        generate_share=None,
        startup_s=0.0,
        retries=0,
        reason="it was complete already",
    )


def _energy_figures(energy: Energy, overhead: Energy) -> dict[str, Any]:
    return {
        "energy_j": _joules(energy.energy_mj),
        "energy_low_j": _joules(energy.low_mj),
        "energy_high_j": _joules(energy.high_mj),
        "energy_quality": energy.quality,
        "energy_method": energy.method,
        "overhead_j": _joules(overhead.energy_mj),
    }


def _joules(energy_mj: int | None) -> float | None:
    return None if energy_mj is None else energy_mj / 1e3
