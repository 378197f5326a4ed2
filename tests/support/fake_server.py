"""A server of the job service without Ray: it claims jobs, reports runs and commits shards, one
small step at a time, as ``un0 serve`` does. And what lets a service be tried without a model."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from cluster.actors.options import ModelWork
from cluster.energy import sum_energy
from cluster.states import JobState
from cluster.storage.backoff import Backoff
from cluster.storage.commit import commit, ended_state, read_commits
from cluster.storage.epoch import claim_next, holder_of, newest
from cluster.storage.finish import finalise
from cluster.storage.intents import newest_intent
from cluster.storage.layout import ACTIVE, JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import (
    Beat,
    RunStatus,
    newest_run,
    put_beat,
    put_run,
    read_beats,
    sign_off,
)
from cluster.storage.summaries import load_job
from jobs.resolve import ModelFacts
from tests.support.jobfactory import ESTIMATE, record_of

REV = "rev-1"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def without_models(patch: pytest.MonkeyPatch) -> None:
    """Submissions read no model, and nobody waits between tries."""
    facts = ModelFacts("test/tiny", REV, 3, 8, ("ant", "bee", "cat"))
    patch.setattr(
        "jobs.service.prepare.model_facts", lambda _: (facts, ModelWork(1.0, 16, 16, 1_000_000))
    )
    patch.setattr("cluster.storage.commit.Backoff", partial(Backoff, sleep=lambda _: None))


class Clock:
    """A monotonic clock that goes on a little whenever it is read, and when it is asked to."""

    def __init__(self, step_s: float = 5.0) -> None:
        self.now_s, self._step_s = 0.0, step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s


class FakeServer:
    """Call ``beat`` for signs of life and ``step`` for the next thing that it does with a job."""

    def __init__(self, store: ObjectStore, server_id: str) -> None:
        self._store, self.server_id, self._count = store, server_id, 0

    def beat(self, at: datetime | None = None) -> None:
        self._count += 1
        put_beat(
            self._store,
            Beat(
                server_id=self.server_id,
                count=self._count,
                host_name="here",
                pid=1,
                address=None,
                jobs=0,
                started_at=NOW,
                at=at or datetime.now(UTC),
            ),
        )

    def sign_off(self) -> None:
        sign_off(self._store, self.server_id)

    def jobs(self) -> list[str]:
        """Those that are active and exist."""
        ids = [info.key.removeprefix(ACTIVE) for info in self._store.list(ACTIVE)]
        specs = {info.key for info in self._store.list("jobs/")}
        return [job_id for job_id in ids if JobLayout(job_id).spec in specs]

    def step(self, job_id: str, *, over_budget: bool = False) -> None:
        """Do the next thing about the job: at most one write that others can see."""
        store = self._store
        if ended_state(store, job_id) is not None:
            store.delete(JobLayout(job_id).active)
            return
        intent, run, epoch = newest_intent(store, job_id), newest_run(store, job_id), 0
        assert intent is not None
        epoch = newest(store, job_id)
        holder = holder_of(store, job_id, epoch) if epoch else ""
        if holder != self.server_id:
            at_rest = run is not None and run.state == JobState.PAUSED
            rests = at_rest and run is not None and run.intent >= intent.number
            if holder not in read_beats(store) and not rests:
                claim_next(store, job_id, epoch, self.server_id)
            return
        state = run.state if run is not None and run.epoch == epoch else None
        say = partial(self._say, job_id, epoch, intent.number)
        at_work = state in (JobState.STARTING, JobState.RUNNING)
        if intent.wanted == "cancel":
            if at_work:
                say(JobState.CANCELLING)
            else:
                finalise(store, job_id, JobState.CANCELLED)
        elif intent.wanted == "pause":
            if state != JobState.PAUSED or run is None or run.intent < intent.number:
                say(JobState.PAUSING if at_work else JobState.PAUSED, reason_code="user_request")
        elif state in (None, JobState.QUEUED):
            say(JobState.STARTING)
        elif state == JobState.PAUSING:
            say(JobState.PAUSED, reason_code="user_request")
        elif state == JobState.PAUSED:
            if run is not None and run.intent < intent.number:
                say(JobState.QUEUED)
        elif over_budget:
            say(JobState.PAUSED, reason_code="energy_budget", reason="its budget is used up")
        else:
            self._work(job_id, say)

    def _work(self, job_id: str, say: Any) -> None:
        """Commit the next shard, or end the job."""
        workload = load_job(self._store, job_id).workload
        done = read_commits(self._store, job_id)
        missing = [s for s in range(workload.num_shards) if s not in done]
        if not missing:
            finalise(self._store, job_id, JobState.COMPLETED, shards=workload.num_shards)
            return
        record = record_of(workload, workload.shard(missing[0]), b"pictures")
        self._store.put(record.objects[0].key, b"pictures")
        commit(self._store, record)
        say(JobState.RUNNING)

    def _say(self, job_id: str, epoch: int, intent: int, state: JobState, **fields: str) -> None:
        done = read_commits(self._store, job_id).values()
        status = RunStatus(
            job_id=job_id,
            epoch=epoch,
            server_id=self.server_id,
            intent=intent,
            state=state,
            at=datetime.now(UTC),
            started_at=NOW,
            committed_images=sum(record.rows for record in done),
            energy=sum_energy(record.energy for record in done) if done else ESTIMATE,
            **fields,  # type: ignore[arg-type]
        )
        put_run(self._store, status)
