"""Submit and run a job in one, or resume it, in the foreground. Its state is in its store."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from cluster.actors.options import RunOptions
from cluster.errors import UserError
from cluster.stopping import STOP_S
from cluster.storage.commit import find_manifest
from cluster.storage.intents import newest_intent
from cluster.storage.summaries import load_job
from cluster.types import JobRecord
from jobs.defaults import DEFAULT_STORE
from jobs.follow import OnSnapshot, run
from jobs.result import JobResult, result_of_earlier
from jobs.service.prepare import inputs_of, prepare, submit, with_model
from jobs.service.store_options import StoreOptions
from jobs.spec import JobSpec

OnJob = Callable[[JobRecord], None]


def generate(
    spec: JobSpec,
    store: str = DEFAULT_STORE,
    *,
    endpoint_url: str | None = None,
    single_writer: bool = False,
    sse: str | None = None,
    sse_kms_key: str | None = None,
    replicas: int | None = None,
    address: str | None = None,
    stop_within_s: float = STOP_S,
    on_job: OnJob | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Submit a job and run it to its end.

    single_writer: accept an S3 server without conditional writes. The caller must ensure that only
        one process runs a job at a time.
    sse, sse_kms_key: server-side encryption on S3 (see ``open_store``).
    stop_within_s: how long SIGINT, SIGTERM or SIGHUP may take to stop it (``jobs.follow.run``).
    on_job: called once the job is in the store; on_snapshot: called with its progress.
    Raises UserError, or un0's InputError or ModelFormatError, for errors that the caller can fix.
    """
    if spec.on_deadline == "stop":
        raise UserError(
            "on_deadline: stop is for jobs of the service: submit it with `un0 submit`, or leave "
            "it out"
        )
    opened = StoreOptions(store, endpoint_url, single_writer, sse, sse_kms_key).opened()
    with ExitStack() as on_disk:
        inputs = on_disk.enter_context(inputs_of(spec, opened))
        record, work = prepare(spec, opened, inputs=inputs)

        def begin() -> None:
            submit(record, opened, inputs)
            on_disk.close()  # the store has the rows now
            if on_job is not None:
                on_job(record)

        options = RunOptions(replicas, address, stop_within_s)
        return run(record, opened, options, work, begin, on_snapshot)


def resume(
    job_id: str,
    store: str = DEFAULT_STORE,
    *,
    model: str | None = None,
    endpoint_url: str | None = None,
    single_writer: bool = False,
    sse: str | None = None,
    sse_kms_key: str | None = None,
    replicas: int | None = None,
    address: str | None = None,
    stop_within_s: float = STOP_S,
    on_job: OnJob | None = None,
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Run the shards that a job still lacks. Returns at once if it is complete. Raises UserError
    for a job that was submitted, which servers run.

    model: where the job's model is now, if it has moved; it must be the same file.
    """
    opened = StoreOptions(store, endpoint_url, single_writer, sse, sse_kms_key).opened()
    record = load_job(opened, job_id)
    if newest_intent(opened, job_id) is not None:
        raise UserError(
            f"job {job_id} was submitted, and its servers run it; `un0 resume {job_id}` asks them "
            "to go on with it"
        )
    if on_job is not None:
        on_job(record)
    manifest = find_manifest(opened, job_id)
    if manifest is not None and manifest.state == "completed":
        return result_of_earlier(manifest, opened.config.uri, record)
    record, work = with_model(record, model or record.workload.model)

    def begin() -> None:
        """Nothing is written: the coordinator reopens the job when it takes it on."""

    return run(
        record, opened, RunOptions(replicas, address, stop_within_s), work, begin, on_snapshot
    )
