"""Follow a run to its end, and stop it cleanly when asked to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

from cluster.actors.options import ModelWork, RunOptions, RunRequest
from cluster.clock import utc_now
from cluster.errors import UserError
from cluster.progress import Snapshot
from cluster.scheduler.request import JobRequest, Objective
from cluster.states import JobState
from cluster.stopping import Stopped
from cluster.storage.commits import open_commits
from cluster.storage.object_store import ObjectStore
from cluster.types import MISSING_ENERGY, JobRecord
from jobs.listening import stop_requests
from jobs.result import JobResult, result_of

OnSnapshot = Callable[[Snapshot], None]


def run(
    record: JobRecord,
    store: ObjectStore,
    options: RunOptions,
    facts: ModelWork,
    begin: Callable[[], None],
    on_snapshot: OnSnapshot | None = None,
) -> JobResult:
    """Run a job to its end.

    facts: of its model, to estimate hardware that was never measured.
    begin: called once Ray is up, so that nothing is written to the store if Ray does not start.

    SIGINT (Ctrl-C), SIGTERM or SIGHUP (the terminal is closed) stops it; the result's state is
    then ``stopped``. The stop takes at most ``options.stop_within_s``: shards that need more than
    half of it are given up, and their energy counts as wasted. Then the energy log is written,
    then the decisions. A second signal gives up all shards at once. On a shared coordinator the
    run goes on after a SIGHUP, and the state is the job's at that moment. Signals are handled in
    the main thread only.
    """
    with stop_requests(options.stop_within_s) as stop:  # an exception could break Ray's start
        from cluster.actors.launch import job_run  # Ray takes a second to import

        last: Snapshot | None = None
        try:
            with job_run(request_of(record, facts), store.config, options, stop) as job:
                begin()
                for last in job:
                    if on_snapshot is not None:
                        on_snapshot(last)
        except Stopped:
            last = _not_begun(record, store)
        assert last is not None  # the coordinator's first snapshot comes before its end
        if last.state == JobState.STOPPING:
            last = replace(last, state=JobState.STOPPED, reason="its end was not waited for")
        return result_of(last, store.config.uri, record, utc_now())


def _not_begun(record: JobRecord, store: ObjectStore) -> Snapshot:
    """The result of a run that was stopped before it began: its job may not be in the store."""
    workload = record.workload
    commits = open_commits(store, workload.job_id, shards=workload.num_shards)
    return Snapshot(
        job_id=workload.job_id,
        state=JobState.STOPPED,
        total_images=workload.count,
        committed_images=commits.images,
        run_images=0,
        open_images=0,
        startup_s=0.0,
        run_s=0.0,
        energy=commits.energy if commits.images else MISSING_ENERGY,
        overhead=MISSING_ENERGY,
        replicas=(),
        reason="stopped on request",
    )


def request_of(record: JobRecord, facts: ModelWork) -> RunRequest:
    """The job as the scheduler is to see it from now on. Raises UserError for an objective that
    this version does not know."""
    spec, workload = record.spec, record.workload
    deadline_s = spec.deadline
    if deadline_s is not None:
        deadline_s -= (utc_now() - record.submitted_at).total_seconds()
    request = JobRequest(
        job_id=workload.job_id,
        model=workload.model_rev,
        images=workload.count,
        shard_images=workload.shard_images,
        owner=record.owner,
        priority=spec.priority,
        deadline_s=deadline_s,
        objective=objective_of(spec.objective),
        energy_budget_j=spec.energy_budget,
        encoding=workload.encoding_key,
    )
    return RunRequest(workload, request, facts)


def objective_of(name: str) -> Objective:
    """The scheduler's name of it. Raises UserError for one that this version does not know."""
    known: tuple[Objective, ...] = get_args(Objective)
    for objective in known:
        if objective == name:
            return objective
    raise UserError(
        f"objective {name!r} is not one that this version of un0 knows; run the job with the "
        f"version that it was submitted with, or a newer one"
    )
