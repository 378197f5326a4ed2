"""One job of a coordinator: its store, its counts, its snapshots, and how it ends in the store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import replace

from cluster.actors.outcomes import Done, Progress
from cluster.actors.slot import SlotHandle
from cluster.clock import monotonic_s
from cluster.energy import ZERO_ENERGY, sum_energy
from cluster.errors import ClusterError, Fatal, StoreGone
from cluster.progress import ReplicaView, Snapshot
from cluster.scheduler.commands import FinishJob
from cluster.scheduler.losses import UNDER_WAY_AT_MOST
from cluster.scheduler.request import SetAside
from cluster.stage_times import StageTimes
from cluster.states import NEXT_JOB_STATES, JobState, ReplicaState
from cluster.stopping import NO_HURRY, Grace
from cluster.storage.checkpointing import Checkpointer
from cluster.storage.commit import Outcome, commit, find_commit, find_manifest, reopen
from cluster.storage.commits import Commits, open_commits
from cluster.storage.epoch import claim, newest
from cluster.storage.finish import finalise
from cluster.storage.object_store import ObjectStore
from cluster.storage.servers import overhead_of_runs
from cluster.types import (
    MISSING_ENERGY,
    CommitRecord,
    Energy,
    Manifest,
    Workload,
    model_key,
)
from cluster.types import SetAside as SetAsideRecord

logger = logging.getLogger(__name__)


class JobRun:
    """What the displays want to know of a job, and what its store has to know."""

    def __init__(self, workload: Workload, store: ObjectStore, epoch: int | None = None) -> None:
        self.workload = workload
        self.served = epoch is not None
        self.over = asyncio.Event()  # nothing more will change
        self.stopping = False  # the user wants it to end before it is complete
        self.grace = NO_HURRY  # until when, then
        self._store = store
        self.model = model_key(workload.model_rev, workload.precision)
        self.epoch = epoch or 0  # of this run among the job's
        self._checkpoints = Checkpointer(store, workload.job_id, workload.num_shards)
        self._views: dict[str, ReplicaView] = {}  # without images, which change all the time
        self._committed_by: dict[str, int] = {}  # images by replica
        self._under_way: dict[str, int] = {}  # images by replica, as last reported
        self._energy = self._overhead = ZERO_ENERGY
        self._earlier_overhead = ZERO_ENERGY  # of runs that had ended the job before
        self._committed_images = self._committed_shards = 0
        self._run_images = 0
        self._stages = StageTimes()  # of replicas' parts in the job that are over
        self._times: dict[str, StageTimes] = {}  # of those that are not, as last reported
        self.retries = 0
        self.note = ""
        self._state = JobState.STARTING
        self._reason = ""
        self._set_aside: tuple[SetAside, ...] = ()
        self._began_s = monotonic_s()
        self._first_ready_s: float | None = None
        self._ended_s: float | None = None

    def open(self) -> tuple[tuple[int, int], ...]:
        """Claim the job and read what is committed: as ranges of shards. Blocks on the store.

        A job of the service is claimed already. Raises ClusterError if somebody else has claimed it
        since, or if it has ended: its end is final.
        """
        job_id = self.workload.job_id
        if self.served:
            self._check_claim()
            self._earlier_overhead = overhead_of_runs(self._store, job_id, before=self.epoch)
        else:
            self._reopen()
            self.epoch = claim(self._store, job_id)
        commits = open_commits(self._store, job_id, shards=self.workload.num_shards)
        commits = self._checkpoints.begin(commits)
        self._recounted(commits)
        return tuple(commits.shards)

    def _check_claim(self) -> None:
        if newest(self._store, self.workload.job_id) != self.epoch:
            raise ClusterError("another server has claimed the job since")
        if find_manifest(self._store, self.workload.job_id) is not None:
            raise ClusterError("the job has ended")

    def taken_over(self, epoch: int) -> None:
        """Another server goes on with this run under its own claim. Overhead until now is the claim
        before's, whose server has written it down."""
        self.epoch = epoch
        self._earlier_overhead = sum_energy([self._earlier_overhead, self._overhead])
        self._overhead = ZERO_ENERGY

    def _reopen(self) -> None:
        """Make the job one that has not ended. What its runs so far spent beside images stays its
        overhead."""
        ended = reopen(self._store, self.workload.job_id)
        if ended is not None:
            self._earlier_overhead = sum_energy([self._earlier_overhead, ended.overhead])

    def commit(self, record: CommitRecord) -> Outcome | None:
        """Commit for a store whose one writer is the newest run; None if that is another one."""
        if newest(self._store, self.workload.job_id) != self.epoch:
            return None
        return commit(self._store, record)

    def read_back(self, shards: Iterable[int], attempts: str) -> list[CommitRecord]:
        """The commits of these shards by attempts whose ids begin so, up to the first few shards
        that have none. Empty where the store does not answer, or this process alone commits."""
        records: list[CommitRecord] = []
        missing = 0
        if self._store.config.single_writer:
            return records
        for shard in shards:
            try:
                record = find_commit(self._store, self.workload.job_id, shard)
            except ClusterError:
                break
            missing += record is None
            if record is not None and record.attempt_id.startswith(attempts):
                records.append(record)
            if missing == UNDER_WAY_AT_MOST:
                break
        return records

    def committed(self, replica_id: str, done: Done) -> None:
        """Attempts of this run have won."""
        self._committed_images += done.images
        self._committed_shards += done.stop - done.first
        self._energy = sum_energy([self._energy, done.energy])
        self._run_images += done.images
        self._committed_by[replica_id] = self._committed_by.get(replica_id, 0) + done.images

    def keep(self, record: CommitRecord) -> None:
        """Of a job so large that it has checkpoints: a commit that is to be in one."""
        self._checkpoints.add(record)

    def under_way(self, replica_id: str, progress: Progress) -> None:
        """What the replica has generated and not committed, what holds it up, and its stages."""
        self._under_way[replica_id] = progress.images
        if progress.trouble != self.view(replica_id).note:
            self.update(replica_id, note=progress.trouble)
        if progress.times.window_s and self._ended_s is None:  # else it may be closed already
            self._times[replica_id] = progress.times

    def started(self, startup: Energy) -> None:
        """A replica was started for this job: what that took is its overhead."""
        self._overhead = sum_energy([self._overhead, startup])

    def joined(self, slot: SlotHandle) -> None:
        """The slot's replica is up, and works for the job from now on."""
        if self.view(slot.replica_id).state == ReplicaState.AWAKE:
            return
        self._first_ready_s = self._first_ready_s or monotonic_s()
        if self._state == JobState.STARTING:
            self._move(JobState.RUNNING)
        self.update(
            slot.replica_id,
            state=ReplicaState.AWAKE,
            host_name=slot.host_name,
            hardware=slot.hardware,
            provider=slot.provider,
        )

    def stop(self, grace: Grace) -> None:
        """The user wants it to end, by then."""
        self.stopping, self.grace = True, grace
        if self._state in (JobState.STARTING, JobState.RUNNING):
            self._move(JobState.STOPPING)

    def closed(self, replica_id: str, times: StageTimes | None = None) -> None:
        """A replica's part in the job is over, with nothing under way. times: of its stages; None
        takes those last reported."""
        reported = self._times.pop(replica_id, StageTimes())
        self._stages += reported if times is None else times
        self._under_way[replica_id] = 0

    def view(self, replica_id: str) -> ReplicaView:
        return self._views.setdefault(replica_id, ReplicaView(replica_id))

    def update(self, replica_id: str, **changes: object) -> None:
        self._views[replica_id] = replace(self.view(replica_id), **changes)  # type: ignore[arg-type]

    @property
    def replicas(self) -> list[str]:
        """The replicas that have had to do with the job."""
        return list(self._views)

    def stop_clock(self) -> None:
        """Generation has ended."""
        self._ended_s = self._ended_s or monotonic_s()

    async def end(self, finish: FinishJob) -> None:
        """Write down how it ended, unless it may go on or others are to say."""
        self.stop_clock()
        await asyncio.to_thread(self._checkpoints.settle)
        state: JobState = finish.state
        reason = finish.reason
        if self._says_the_end(state):
            try:
                manifest = await asyncio.to_thread(self._finalise, finish)
            except ClusterError as error:
                parts = [reason] if str(error) in reason else [reason, str(error)]
                state, reason = JobState.FAILED, "; ".join(filter(None, parts))
                await asyncio.to_thread(self._recount)
            else:  # attempts that lost to another run's, say, were not counted here
                self._committed_images, self._energy = manifest.images, manifest.energy
                state = manifest.state if self.served else state
        else:
            await asyncio.to_thread(self._recount)
        self._move(state)
        self._reason, self._set_aside = reason, finish.set_aside
        self.over.set()

    def _says_the_end(self, state: JobState) -> bool:
        """Whether this run writes to the store that the job has ended so."""
        if state != JobState.FAILED:
            return state.is_terminal
        # A run that never had a replica may fail for reasons of its own, while another goes on.
        # Whether a job of the service is tried again is for its server to say.
        return not self.served and self._first_ready_s is not None

    def _finalise(self, finish: FinishJob) -> Manifest:
        """Write how the job ended. That it is complete overrules another run's failure, unless the
        service has it: an end is final there."""
        job_id, state = self.workload.job_id, finish.state
        aside = tuple(
            SetAsideRecord(shard=s.shard, attempts=s.attempts, reason=s.reason)
            for s in finish.set_aside
        )
        while True:
            checked = state == JobState.FAILED or self.served
            newest_run = newest(self._store, job_id) if checked else self.epoch
            if newest_run < self.epoch:
                raise Fatal(f"the records of job {job_id} are gone from {self._store.config.uri}")
            if newest_run > self.epoch:
                raise ClusterError("a newer run has taken the job over, and will say how it ends")
            manifest = finalise(
                self._store,
                job_id,
                state,
                shards=self.workload.num_shards,
                overhead=sum_energy([self._earlier_overhead, self._overhead]),
                set_aside=aside,
            )
            if self.served or state != JobState.COMPLETED or manifest.state == state:
                return manifest
            self._reopen()

    def _recount(self) -> None:
        """Claim only what is in the store: what was committed there may have been removed."""
        job_id, shards = self.workload.job_id, self.workload.num_shards
        try:
            commits = open_commits(self._store, job_id, shards=shards)
            if len(commits) != self._committed_shards:
                self._recounted(commits)
        except StoreGone:
            self._recounted(Commits(self._store, job_id))
        except ClusterError:  # it does not answer: what was last known of it
            return

    def _recounted(self, commits: Commits) -> None:
        images, energy = commits.images, commits.energy
        self._committed_shards, self._committed_images = len(commits), images
        self._energy = energy

    def _move(self, state: JobState) -> None:
        if state not in NEXT_JOB_STATES[self._state]:
            raise Fatal(f"job {self.workload.job_id} cannot go from {self._state} to {state}")
        self._state = state

    def snapshot(self) -> Snapshot:
        """The job now."""
        now_s = self._ended_s or monotonic_s()
        ready_s = self._first_ready_s or now_s
        return Snapshot(
            job_id=self.workload.job_id,
            state=self._state,
            total_images=self.workload.count,
            committed_images=self._committed_images,
            run_images=self._run_images,
            open_images=sum(self._under_way.values()),
            startup_s=ready_s - self._began_s,
            run_s=now_s - ready_s,
            energy=self._energy if self._committed_images else MISSING_ENERGY,
            overhead=self._overhead if self._first_ready_s else MISSING_ENERGY,
            stages=sum(self._times.values(), self._stages),
            replicas=tuple(map(self._with_images, self._views.values())),
            reason=self._reason,
            retries=self.retries,
            note=self.note,
            set_aside=self._set_aside,
            epoch=self.epoch,
        )

    def _with_images(self, view: ReplicaView) -> ReplicaView:
        committed = self._committed_by.get(view.replica_id, 0)
        under_way = self._under_way.get(view.replica_id, 0)
        if (view.committed_images, view.open_images) == (committed, under_way):
            return view
        view = replace(view, committed_images=committed, open_images=under_way)
        self._views[view.replica_id] = view
        return view


class JobBook(dict[str, JobRun]):
    """The jobs that are not over, by id, oldest first."""

    def of_model(self, model: str) -> list[JobRun]:
        """The jobs of that model, oldest first."""
        return [job for job in self.values() if job.model == model]
