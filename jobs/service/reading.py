"""One job as the store has it now. While a server reports its run, no commit is listed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from cluster.energy import ZERO_ENERGY, in_joules
from cluster.errors import NotFound, StoreGone, UserError
from cluster.states import JobState
from cluster.storage.commit import ended_state, find_manifest, parse_record
from cluster.storage.commits import Commits, commits_of, open_commits
from cluster.storage.intents import Intent, newest_intent
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import RunStatus
from cluster.storage.summaries import load_job
from cluster.types import MISSING_ENERGY, Energy, JobRecord, Manifest, SetAside, Workload
from jobs.defaults import JOB_ID
from jobs.service.api import NoSuchJob
from jobs.service.observe import Facts, Observed, observe
from jobs.service.presence import Presence
from jobs.service.views import Counts, JobEnergy, JobLine, Results


@dataclass(frozen=True)
class Seen:
    """A job's state and what it follows from."""

    intent: Intent | None
    run: RunStatus | None
    manifest: Manifest | None
    observed: Observed


@dataclass(frozen=True)
class Standing:
    """A job, its state, and what it has. overhead: None where nothing is known of it."""

    record: JobRecord
    seen: Seen
    images: int
    shards: int
    energy: Energy
    overhead: Energy | None
    set_aside: tuple[SetAside, ...]

    @property
    def workload(self) -> Workload:
        return self.record.workload

    @property
    def live(self) -> RunStatus | None:
        """Its run, while a server reports it."""
        return self.seen.run if self.seen.observed.live else None

    @property
    def state(self) -> JobState:
        return self.seen.observed.state

    @property
    def due_at(self) -> datetime | None:
        """Its deadline."""
        deadline_s = self.record.spec.deadline
        return (
            None if deadline_s is None else self.record.submitted_at + timedelta(seconds=deadline_s)
        )


def read_record(store: ObjectStore, job_id: str) -> JobRecord:
    """The job as submitted. Raises NoSuchJob, naming similar jobs."""
    if not JOB_ID.fullmatch(job_id):
        raise NoSuchJob(f"{job_id[:140]!r} is no job id; `un0 jobs` lists those of a store")
    try:
        return load_job(store, job_id)
    except StoreGone:
        raise
    except UserError as error:
        with suppress(NotFound):  # the store's own complaint, not that the job is missing
            store.get(JobLayout(job_id).spec)
            raise
        raise NoSuchJob(str(error)) from None


def find_record(store: ObjectStore, job_id: str) -> JobRecord | None:
    """The job as submitted; None where there is none. Raises Fatal for a damaged one."""
    key = JobLayout(job_id).spec
    try:
        return parse_record(JobRecord, key, store.get(key))
    except NotFound:
        return None


def look(store: ObjectStore, job_id: str, presence: Presence) -> Seen:
    """The job's state. Takes a request or two for each thing, however large the job."""
    intent = newest_intent(store, job_id)
    run = None if intent is None else next(runs_of(store, job_id), None)
    alive = frozenset[str]() if intent is None else presence.alive()
    ended = ended_state(store, job_id)  # last: what a run reports to have ended is found
    manifest = None if ended is None else find_manifest(store, job_id)
    facts = Facts(
        store_uri=store.config.uri,
        intent=intent,
        ended=ended,
        run=run,
        held=run is not None and run.server_id in alive,
        servers=len(alive),
        set_aside=0 if manifest is None else len(manifest.set_aside),
    )
    return Seen(intent, run, manifest, observe(facts))


def stand(store: ObjectStore, record: JobRecord, presence: Presence) -> Standing:
    """How the job stands. While a server reports its run no commit is listed or read."""
    seen = look(store, record.workload.job_id, presence)
    run, manifest = seen.run, seen.manifest
    if seen.observed.live and run is not None and run.energy is not None and _has_read(run):
        # Every shard but the last has as many images, so that those say how many shards they are.
        images, overhead, set_aside = run.committed_images, run.overhead, run.set_aside
        shards = -(-images // record.workload.shard_images)
        energy = run.energy
    else:
        commits = _commits(store, record, manifest)
        images, shards, energy = commits.images, len(commits), commits.energy
        overhead = None if manifest is None else manifest.overhead
        set_aside = () if manifest is None else manifest.set_aside
    return Standing(
        record,
        seen,
        images,
        shards,
        energy if images else MISSING_ENERGY,
        overhead if overhead != ZERO_ENERGY else None,
        set_aside,
    )


def runs_of(store: ObjectStore, job_id: str) -> Iterator[RunStatus]:
    """How each of the service's runs of the job stood when it was last written, newest first."""
    for info in reversed(list(store.list(JobLayout(job_id).runs))):
        with suppress(NotFound):
            yield parse_record(RunStatus, info.key, store.get(info.key))


def commits_now(store: ObjectStore, record: JobRecord) -> Commits:
    """The job's commits, as its manifest or its records have them."""
    job_id = record.workload.job_id
    ended = ended_state(store, job_id)
    return _commits(store, record, None if ended is None else find_manifest(store, job_id))


def counts_of(standing: Standing) -> Counts:
    """Images of the job by how far they are."""
    live, workload = standing.live, standing.workload
    return Counts(
        total=workload.count,
        committed=standing.images,
        in_flight=0 if live is None else live.in_flight_images,
        failed=sum(workload.shard(lost.shard).rows for lost in standing.set_aside),
    )


def energy_of(standing: Standing) -> JobEnergy:
    """What the job has taken so far."""
    energy, overhead = standing.energy, standing.overhead
    return JobEnergy(
        energy_j=in_joules(energy.energy_mj),
        low_j=in_joules(energy.low_mj),
        high_j=in_joules(energy.high_mj),
        quality=energy.quality,
        method=energy.method,
        overhead_j=None if overhead is None else in_joules(overhead.energy_mj),
    )


def results_of(standing: Standing, store: ObjectStore) -> Results:
    """Where the job's images are."""
    workload = standing.workload
    return Results(
        uri=f"{store.config.uri}/{JobLayout(workload.job_id).root.rstrip('/')}",
        shards=workload.num_shards,
        committed_shards=standing.shards,
        committed_images=standing.images,
        complete=standing.state == JobState.COMPLETED,
    )


def line_of(standing: Standing) -> JobLine:
    """The job in a list."""
    record = standing.record
    return JobLine(
        job_id=record.workload.job_id,
        model=record.workload.model,
        owner=record.owner,
        labels=record.spec.labels,
        state=standing.state,
        priority=record.spec.priority,
        created_at=record.submitted_at,
        counts=counts_of(standing),
        energy=energy_of(standing),
    )


def _has_read(run: RunStatus) -> bool:
    """Whether the run knows by now what those before it committed."""
    return run.committed_images > 0 or run.state not in (JobState.QUEUED, JobState.STARTING)


def _commits(store: ObjectStore, record: JobRecord, manifest: Manifest | None) -> Commits:
    """A completed job's are those of its manifest, which never changes and spares a request a
    shard; any other's are read, since runs that outlive an end may still commit."""
    if manifest is not None and manifest.state == JobState.COMPLETED:
        return commits_of(store, manifest)
    return open_commits(store, record.workload.job_id, shards=record.workload.num_shards)
