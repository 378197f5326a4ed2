"""A job service in memory, for the faces of the service: it honours the protocol, runs nothing,
and its jobs move on when a test says so."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from cluster.errors import UserError
from cluster.states import JobState
from cluster.storage.history import EventKind
from jobs.service.api import Conflict, KeyReused, NoSuchJob
from jobs.service.views import (
    PAGE_SIZE,
    Counts,
    EventView,
    JobEnergy,
    JobFilter,
    JobLine,
    JobPage,
    JobView,
    Quote,
    Reason,
    Results,
)
from jobs.spec import JobSpec

START = datetime(2026, 1, 1, tzinfo=UTC)
UNKNOWN = JobEnergy(energy_j=None, low_j=None, high_j=None, quality="missing", method="none")


class MemoryService:
    """``JobService`` of this process. calls: by verb. uri: of its store, for views."""

    def __init__(self, uri: str = "file:///srv/secret/store") -> None:
        self.uri = uri
        self.calls: Counter[str] = Counter()
        self._lock = threading.RLock()
        self._jobs: dict[str, JobView] = {}
        self._events: dict[str, list[EventView]] = {}
        self._keys: dict[tuple[str, str], tuple[str, str]] = {}

    def submit(self, spec: JobSpec, *, by: str, idempotency_key: str | None = None) -> JobView:
        _count(spec)  # before anything is kept
        with self._lock:
            self.calls["submit"] += 1
            owner, body = spec.owner or by, hashlib.sha256(spec.model_dump_json().encode())
            if idempotency_key is not None:
                key = (owner, idempotency_key)
                job_id, digest = self._keys.get(key, ("", ""))
                if job_id and digest != body.hexdigest():
                    raise KeyReused(f"idempotency key {idempotency_key!r} belongs to another")
                if job_id:
                    return self._jobs[job_id]
            job_id = spec.job_id or f"job-{len(self._jobs):06d}"
            if job_id in self._jobs:
                raise UserError(f"job {job_id!r} is already in {self.uri}; choose another --job-id")
            if idempotency_key is not None:
                self._keys[key] = (job_id, body.hexdigest())
            self._jobs[job_id] = self._new(job_id, spec, owner)
            self._events[job_id] = []
            return self._happened(job_id, "submitted", "submitted", by, state=JobState.QUEUED)

    def quote(self, spec: JobSpec) -> Quote:
        self.calls["quote"] += 1
        return Quote(
            energy_j=None,
            energy_low_j=None,
            energy_high_j=None,
            quality="missing",
            seconds=None,
            queue_seconds=None,
            images_per_hardware={"test device": _count(spec)},
            cost=None,
            carbon_g=None,
            basis=(),
            notes=("nothing is known",),
        )

    def status(self, job_id: str) -> JobView:
        self.calls["status"] += 1
        with self._lock:
            if job_id not in self._jobs:
                raise NoSuchJob(f"no job {job_id!r} in {self.uri}; `un0 jobs` lists those it has")
            return self._jobs[job_id]

    def jobs(self, wanted: JobFilter, page_size: int = PAGE_SIZE, page_token: str = "") -> JobPage:
        self.calls["jobs"] += 1
        if page_token and not page_token.startswith("after-"):
            raise UserError(f"page_token {page_token[:40]!r} is none that this service gave")
        with self._lock:
            found = sorted((v for v in self._jobs.values() if _fits(v, wanted)), key=_id)[::-1]
        after = page_token.removeprefix("after-")
        rest = [view for view in found if not after or view.job_id < after]
        page = rest[:page_size]
        more = len(rest) > page_size
        token = f"after-{page[-1].job_id}" if more else ""
        return JobPage(jobs=tuple(map(_line, page)), next_page_token=token)

    def cancel(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        return self._change(job_id, JobState.CANCELLED, by, reason)

    def pause(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        return self._change(job_id, JobState.PAUSED, by, reason)

    def resume(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        return self._change(job_id, JobState.QUEUED, by, reason)

    def results(self, job_id: str) -> Results:
        return self.status(job_id).results

    def uris(self, job_id: str) -> Iterator[str]:
        self.status(job_id)
        return iter(())

    def events(self, job_id: str, after: int = 0) -> list[EventView]:
        self.calls["events"] += 1
        self.status(job_id)
        with self._lock:
            return [event for event in self._events[job_id] if event.id > after]

    def move(self, job_id: str, state: JobState, message: str = "", **changes: Any) -> JobView:
        """The job is in this state from now on, as a server would have made it."""
        return self._happened(job_id, "state", message or str(state), "srv", state=state, **changes)

    def become(self, job_id: str, state: JobState) -> None:
        """The job is in this state, though no event says so yet."""
        with self._lock:
            self._jobs[job_id] = self._jobs[job_id].model_copy(update={"state": state})

    def _change(self, job_id: str, to: JobState, by: str, reason: str) -> JobView:
        with self._lock:
            self.calls[to] += 1
            now = self.status(job_id).state
            if now == to or (to == JobState.QUEUED and now == JobState.RUNNING):
                return self._jobs[job_id]
            if now.is_terminal:
                raise Conflict(f"job {job_id} is {now}, in {self.uri}, and stays so")
            return self._happened(job_id, "intent", f"{to}: {reason}", by, state=to)

    def _happened(
        self,
        job_id: str,
        kind: EventKind,
        message: str,
        by: str,
        *,
        state: JobState,
        **changes: Any,
    ) -> JobView:
        with self._lock:
            events = self._events[job_id]
            number = len(events) + 1
            at = START + timedelta(seconds=number)
            event = EventView(id=number, at=at, kind=kind, state=state, message=message, by=by)
            events.append(event)
            changed = self._jobs[job_id].model_copy(
                update={"state": state, "last_event": number} | changes
            )
            self._jobs[job_id] = changed
            return changed

    def _new(self, job_id: str, spec: JobSpec, owner: str) -> JobView:
        return JobView(
            job_id=job_id,
            model=spec.model or "fashion32/n512",
            model_rev="rev-1",
            owner=owner,
            labels=spec.labels,
            spec=spec.model_dump(mode="json", exclude_none=True),
            state=JobState.QUEUED,
            reason=Reason(code="waiting_for_server", message="run `un0 serve`"),
            queue_position=1,
            priority=spec.priority,
            created_at=START + timedelta(seconds=len(self._jobs)),
            started_at=None,
            finished_at=None,
            deadline_at=None,
            counts=Counts(total=_count(spec), committed=0, in_flight=0, failed=0),
            rate_images_per_s=None,
            eta_s=None,
            bottleneck=None,
            energy=UNKNOWN,
            quote=None,
            results=Results(
                uri=f"{self.uri}/jobs/{job_id}/",
                shards=1,
                committed_shards=0,
                committed_images=0,
                complete=False,
            ),
            server_id=None,
            last_event=0,
        )


def _id(view: JobView) -> str:
    return view.job_id


def _fits(view: JobView, wanted: JobFilter) -> bool:
    return (
        wanted.state in (None, view.state)
        and wanted.owner in (None, view.owner)
        and wanted.label.items() <= view.labels.items()
        and (wanted.since is None or view.created_at >= wanted.since)
    )


def _line(view: JobView) -> JobLine:
    return JobLine(**{name: getattr(view, name) for name in JobLine.model_fields})


def _count(spec: JobSpec) -> int:
    if spec.count is None:
        raise UserError("inputs: this service reads no rows; give a count")
    return spec.count
