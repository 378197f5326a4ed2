"""Make a job of the service, in an order in which a crash loses nothing that was acknowledged.

The job's id is bound to the idempotency key first; then come what a server must find when it sees
the job; last the job's spec, by which it exists. Every step may be repeated, by anybody.
"""

from __future__ import annotations

from contextlib import ExitStack, suppress
from datetime import datetime

from cluster.clock import utc_now
from cluster.storage.history import begin_history
from cluster.storage.intents import want
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.types import JobRecord, model_key
from jobs.follow import objective_of
from jobs.resolve import new_job_id
from jobs.service.idempotency import check_key, find_request, keep_request
from jobs.service.limits import Asked, admit, limits_of, retract
from jobs.service.listing import Queued
from jobs.service.prepare import JobInputs, Taken, inputs_of, prepare, taken
from jobs.service.prepare import submit as put_record
from jobs.service.quote import Work, keep_quote, known_profiles, make_quote
from jobs.service.reading import find_record
from jobs.service.views import Quote
from jobs.spec import JobSpec


def submit(
    store: ObjectStore, queued: Queued, spec: JobSpec, by: str, key: str | None
) -> JobRecord:
    """The job of this spec, made now, or before by the same key."""
    owner = spec.owner or by
    spec = spec.model_copy(update={"owner": owner})
    if key is None:
        spec = spec.model_copy(update={"job_id": spec.job_id or new_job_id()})
        with inputs_of(spec, store) as inputs:
            record, quote = _prepared(store, queued, spec, utc_now(), inputs)
            _write(store, record, quote, by, inputs)
        return record
    while True:  # twice at most, if another makes a request of this key at the same time
        request = find_request(store, owner, check_key(key), spec)
        made = None if request is None else find_record(store, request.job_id)
        if made is not None and request is not None:
            if made.submitted_at != request.at:
                raise taken(request.job_id, store)  # by another, before this could be made
            return made
        at = utc_now() if request is None else request.at
        job_id = (spec.job_id or new_job_id()) if request is None else request.job_id
        with ExitStack() as stack:
            try:
                named = spec.model_copy(update={"job_id": job_id})
                inputs = stack.enter_context(inputs_of(named, store))
                record, quote = _prepared(store, queued, named, at, inputs)
            except Taken:
                if request is None:
                    raise
                continue  # made meanwhile, by another with this key
            if request is None:
                request = keep_request(store, owner, key, spec, job_id, at)
                if request.at != at or request.job_id != job_id:
                    if request.job_id != job_id:
                        retract(store, owner, job_id, utc_now())
                    continue
            with suppress(Taken):  # by another with this key, it may be: it is then found above
                _write(store, record, quote, by, inputs)
                return record


def quote_of(store: ObjectStore, queued: Queued, record: JobRecord) -> Quote:
    """What the job would take if it was submitted now."""
    workload, spec = record.workload, record.spec
    work = Work(
        model_key(workload.model_rev, workload.precision),
        workload.count,
        workload.num_shards,
        objective=objective_of(spec.objective),
        deadline_s=spec.deadline,
        encoding=workload.encoding_key,
        budget_j=spec.energy_budget,
    )
    return make_quote(work, known_profiles(store), queued.before(spec.priority))


def _prepared(
    store: ObjectStore, queued: Queued, spec: JobSpec, at: datetime, inputs: JobInputs | None
) -> tuple[JobRecord, Quote]:
    """The job with its quote, admitted by its owner's limits. Of the job itself writes nothing."""
    record, _ = prepare(spec, store, at, inputs)
    quote = quote_of(store, queued, record)
    limits = limits_of(store, record.owner)
    if limits is not None:
        known = [j for j in (quote.energy_j, record.spec.energy_budget) if j is not None]
        energy_j = min(known) if known else None
        workload = record.workload
        asked = Asked(job_id=workload.job_id, images=workload.count, energy_j=energy_j)
        admit(store, record.owner, limits, asked, utc_now())
    return record, quote


def _write(
    store: ObjectStore, record: JobRecord, quote: Quote, by: str, inputs: JobInputs | None
) -> None:
    """Write everything of the job, the spec last. Raises Taken."""
    workload, at = record.workload, record.submitted_at
    if inputs is not None:  # before it is active: it may take long
        inputs.rows.upload(store, workload.job_id)
    store.put(JobLayout(workload.job_id).active, b"")
    want(store, workload.job_id, "run", at, by=by)
    keep_quote(store, workload.job_id, quote)
    message = f"submitted: {workload.count:,} images of {workload.model}"
    if workload.inputs is not None and workload.inputs.bad_rows:
        message += f"; {workload.inputs.bad_rows:,} bad rows are left out"
    begin_history(store, workload.job_id, message, at, by=by)
    put_record(record, store)
