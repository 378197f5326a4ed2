"""The job service over a store: nothing else is needed, and nothing else is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime

from cluster.clock import monotonic_s, utc_now
from cluster.states import JobState
from cluster.storage.commit import ended_state
from cluster.storage.epoch import claim_next, holder_of, newest
from cluster.storage.finish import finalise
from cluster.storage.history import append_event, last_event, read_events
from cluster.storage.intents import Intent, TooLate, Wanted, newest_intent, want
from cluster.storage.layout import JobLayout, holds_images
from cluster.storage.object_store import ObjectStore
from cluster.types import JobRecord
from jobs.service.api import Conflict
from jobs.service.listing import Queued, page_of
from jobs.service.paging import check_page_size, read_token
from jobs.service.presence import Presence
from jobs.service.quote import kept_quote
from jobs.service.reading import (
    Standing,
    commits_now,
    counts_of,
    energy_of,
    look,
    read_record,
    results_of,
    runs_of,
    stand,
)
from jobs.service.views import (
    PAGE_SIZE,
    EventView,
    JobFilter,
    JobPage,
    JobView,
    Quote,
    Reason,
    Results,
)
from jobs.spec import JobSpec

_VERBS: dict[Wanted, str] = {"run": "resumed", "pause": "paused", "cancel": "cancelled"}


class StoreService:
    """``JobService`` on a store. Thread-safe; any number of processes may have one.

    patience_s: of ``Presence``: for a process that asks once, and does not live on. now_s: a
    monotonic clock. reads_files: of this machine and of other buckets, for rows of jobs; not for a
    server, whose callers must not see these.
    """

    def __init__(
        self,
        store: ObjectStore,
        *,
        patience_s: float = 0.0,
        now_s: Callable[[], float] = monotonic_s,
        reads_files: bool = True,
    ) -> None:
        self._store = store
        self._reads_files = reads_files
        self._presence = Presence(store, patience_s=patience_s, now_s=now_s)
        self._queued = Queued(store, self._presence, now_s)

    def submit(self, spec: JobSpec, *, by: str, idempotency_key: str | None = None) -> JobView:
        from jobs.service.submission import submit  # it reads models

        self._check_source(spec)
        return self._view(submit(self._store, self._queued, spec, by, idempotency_key))

    def quote(self, spec: JobSpec) -> Quote:
        from jobs.service.prepare import inputs_of, prepare
        from jobs.service.submission import quote_of

        self._check_source(spec)
        with inputs_of(spec, self._store) as inputs:
            record, _ = prepare(spec, self._store, inputs=inputs)
            return quote_of(self._store, self._queued, record)

    def _check_source(self, spec: JobSpec) -> None:
        if spec.inputs is not None and not self._reads_files:
            from jobs.inputs.source import check_remote

            check_remote(spec.inputs)

    def status(self, job_id: str) -> JobView:
        return self._view(read_record(self._store, job_id))

    def jobs(self, wanted: JobFilter, page_size: int = PAGE_SIZE, page_token: str = "") -> JobPage:
        after = read_token(page_token)
        return page_of(self._store, self._presence, wanted, check_page_size(page_size), after)

    def cancel(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        return self._change(job_id, "cancel", by, reason)

    def pause(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        return self._change(job_id, "pause", by, reason)

    def resume(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        return self._change(job_id, "run", by, reason)

    def results(self, job_id: str) -> Results:
        standing = stand(self._store, read_record(self._store, job_id), self._presence)
        return results_of(standing, self._store)

    def uris(self, job_id: str) -> Iterator[str]:
        commits = commits_now(self._store, read_record(self._store, job_id))
        uri = self._store.config.uri
        return (f"{uri}/{key}" for key, _ in commits.objects() if holds_images(key))

    def events(self, job_id: str, after: int = 0) -> list[EventView]:
        read_record(self._store, job_id)
        return [
            EventView(
                id=event.number,
                at=event.at,
                kind=event.kind,
                state=event.state,
                message=event.message,
                by=event.by,
            )
            for event in read_events(self._store, job_id, after)
        ]

    def _change(self, job_id: str, wanted: Wanted, by: str, reason: str) -> JobView:
        """Want something else of the job. Said twice, it changes nothing."""
        record = read_record(self._store, job_id)
        self._refuse_ended(job_id, wanted)
        now = newest_intent(self._store, job_id)
        if now is None:
            raise Conflict(
                f"job {job_id} is not the service's: a command runs it, and Ctrl-C there stops it; "
                f"`un0 resume {job_id}` goes on with it"
            )
        beyond = self._paused_at(job_id) if wanted == "run" else 0
        try:
            intent, changed = want(
                self._store, job_id, wanted, utc_now(), by=by, reason=reason, beyond=beyond
            )
        except TooLate as error:
            raise Conflict(str(error)) from None
        if changed:
            message = f"{_VERBS[wanted]}{f': {reason}' if reason else ''}"
            append_event(self._store, job_id, "intent", message, intent.at, by=by)
        if wanted == "cancel":
            self._end_if_nobody_has_it(record, intent)
        self._refuse_ended(job_id, wanted)
        if ended_state(self._store, job_id) is None:
            self._store.put(JobLayout(job_id).active, b"")
        return self._view(record)

    def _refuse_ended(self, job_id: str, wanted: Wanted) -> None:
        ended = ended_state(self._store, job_id)
        if ended is not None and (wanted, ended) != ("cancel", JobState.CANCELLED):
            raise Conflict(
                f"job {job_id} is {ended}, and stays so: it cannot be {_VERBS[wanted]}; its images "
                f"are there (`un0 results {job_id}`)"
            )

    def _paused_at(self, job_id: str) -> int:
        """The number of the intent at which the job paused by itself; 0 if it did not."""
        seen = look(self._store, job_id, self._presence)
        if seen.intent is None or seen.observed.state != JobState.PAUSED:
            return 0
        return seen.intent.number if seen.intent.wanted == "run" else 0

    def _end_if_nobody_has_it(self, record: JobRecord, intent: Intent) -> None:
        """End a cancelled job that no server has, and that none is there to end.

        By the claim of a run, as a server would: then none can begin it meanwhile.
        """
        job_id = record.workload.job_id
        epoch = newest(self._store, job_id)
        if epoch:
            holder = holder_of(self._store, job_id, epoch)
            alive = self._presence.alive()
            if alive or holder is None or self._presence.beat(holder) is not None:
                return
        if claim_next(self._store, job_id, epoch, f"cancelled-{intent.token}") is None:
            return  # a server has it now, and will see the intent
        finalise(
            self._store,
            job_id,
            JobState.CANCELLED,
            shards=record.workload.num_shards,
            drained=not epoch,
        )
        message = f"cancelled: no server had it{f' ({intent.reason})' if intent.reason else ''}"
        append_event(
            self._store,
            job_id,
            "state",
            message,
            utc_now(),
            by=intent.by,
            state=JobState.CANCELLED,
        )
        self._store.delete(JobLayout(job_id).active)

    def _view(self, record: JobRecord) -> JobView:
        standing = stand(self._store, record, self._presence)
        observed, live, workload = standing.seen.observed, standing.live, record.workload
        manifest = standing.seen.manifest
        position = self._queued.position(standing)
        return JobView(
            job_id=workload.job_id,
            model=workload.model,
            model_rev=workload.model_rev,
            owner=record.owner,
            labels=record.spec.labels,
            spec=record.spec.model_dump(mode="json"),
            state=observed.state,
            reason=_with_position(observed.reason, position),
            queue_position=position,
            priority=record.spec.priority,
            created_at=record.submitted_at,
            started_at=self._started_at(standing),
            finished_at=None if manifest is None else manifest.finished_at,
            deadline_at=standing.due_at,
            counts=counts_of(standing),
            rate_images_per_s=None if live is None else live.images_per_s,
            eta_s=None if live is None else live.eta_s,
            bottleneck=None if live is None else live.bottleneck,
            energy=energy_of(standing),
            quote=kept_quote(self._store, workload.job_id),
            results=results_of(standing, self._store),
            server_id=None if live is None else live.server_id,
            last_event=last_event(self._store, workload.job_id),
        )

    def _started_at(self, standing: Standing) -> datetime | None:
        """When its first run of the service began."""
        run = standing.seen.run
        if run is None or run.epoch == 1:
            return None if run is None else run.started_at
        runs = reversed(list(runs_of(self._store, standing.workload.job_id)))
        return next((run.started_at for run in runs if run.started_at is not None), None)


def _with_position(reason: Reason | None, position: int | None) -> Reason | None:
    """Of a job that waits for its turn, how many go before it."""
    if reason is None or reason.code != "waiting_for_turn" or position is None or position < 2:
        return reason
    jobs = "1 job goes" if position == 2 else f"{position - 1:,} jobs go"
    return Reason(code=reason.code, message=f"{jobs} before it")
