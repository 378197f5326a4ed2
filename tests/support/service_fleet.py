"""A coordinator of the simulated service: real runs of jobs, made-up replicas.

A run opens its job, counts, commits and ends it by the coordinator's own code. Only the scheduler
and the replicas are made up: a shard is committed now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from random import Random
from typing import Any

from cluster.actors.job_run import JobRun
from cluster.actors.options import ReplicaOptions, RunRequest
from cluster.actors.outcomes import done_of
from cluster.actors.slot import SlotHandle, SlotSpec
from cluster.errors import ClusterError, CommitStateUnknown, FleetLost
from cluster.progress import Snapshot
from cluster.scheduler.commands import FinishJob
from cluster.states import JobState
from cluster.stopping import Grace
from cluster.storage.commit import commit, committed_shards
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from tests.support import jobfactory

SPEC = SlotSpec("r", "node", "host", "cpu", ReplicaOptions("cpu", 1))
SLOT = SlotHandle(SPEC, hardware="cpu")
DATA = b"pictures"


@dataclass
class Habits:
    """What goes wrong on a fleet, from 0 to 1 a second: a run fails, a stop is not heard, a reply
    is lost."""

    fails: float = 0.0
    deaf: float = 0.0
    silent: float = 0.0


class Run:
    """A run of a job, from its begin on."""

    def __init__(self, job: JobRun) -> None:
        self.job = job
        self.opened = False
        self.deaf = False

    @property
    def over(self) -> bool:
        return self.job.over.is_set()


def at_once(work: Coroutine[Any, Any, None]) -> None:
    """Do what waits for nothing."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise AssertionError("it waits for something")


class FakeFleet:
    """See ``jobs.server.ports.Fleet``. on_open: called once a run has opened its job.

    doomed: jobs that fail whoever runs them. thirsty: whose budget is spent after the first shard.
    """

    def __init__(
        self,
        store: ObjectStore,
        random: Random,
        habits: Habits,
        on_open: Callable[[str, int], None],
        doomed: frozenset[str] = frozenset(),
        thirsty: frozenset[str] = frozenset(),
    ) -> None:
        self.store, self.random, self.habits = store, random, habits
        self.on_open = on_open
        self.doomed, self.thirsty = doomed, thirsty
        self.reachable = True
        self.pace = 0.5  # shards a second, of each run
        self.book: dict[str, Run] = {}
        self.served: dict[str, Run] = {}

    def begin(self, run: RunRequest) -> bool:
        self._reached()
        begun = self._begin(run)
        self._answered()
        return begun

    def _begin(self, request: RunRequest) -> bool:
        """As ``cluster.actors.jobs.Jobs.begin``."""
        job_id, epoch = request.workload.job_id, request.epoch
        assert epoch is not None
        run = self.book.get(job_id)
        if run is None:
            earlier = self.served.get(job_id)
            if earlier is not None and earlier.job.epoch >= epoch:
                return earlier.job.epoch == epoch
            run = Run(JobRun(request.workload, self.store, epoch))
            self.book[job_id] = self.served[job_id] = run
            return True
        if run.job.epoch == epoch:
            return True
        if run.job.stopping or run.job.epoch > epoch:
            return False
        run.job.taken_over(epoch)
        return True

    def stop(self, job_id: str, epoch: int, within_s: float, *, hurry: bool = False) -> None:
        del hurry  # it stops at once, or does not hear
        self._reached()
        run = self.book.get(job_id)
        if run is not None and run.job.epoch <= epoch:
            run.job.stop(Grace.of(within_s))
            run.deaf = self.random.random() < self.habits.deaf
        self._answered()

    def snapshots(self) -> dict[str, Snapshot]:
        self._reached()
        found = {job_id: run.job.snapshot() for job_id, run in self.served.items()}
        self._answered()
        return found

    def forget(self, job_id: str, epoch: int) -> None:
        self._reached()
        run = self.served.get(job_id)
        if run is not None and run.over and run.job.epoch <= epoch:
            del self.served[job_id]

    def _reached(self) -> None:
        if not self.reachable:
            raise FleetLost("the coordinator is gone")

    def _answered(self) -> None:
        if self.random.random() < self.habits.silent:
            raise FleetLost("no answer came")

    def step(self) -> None:
        """A second passes."""
        for job_id, run in list(self.book.items()):
            self._step(job_id, run)
            if run.over:
                del self.book[job_id]

    def _step(self, job_id: str, run: Run) -> None:
        job = run.job
        if not run.opened:
            try:
                job.open()
            except ClusterError as error:
                self._end(run, JobState.FAILED, str(error))
                return
            self.on_open(job_id, job.epoch)
            run.opened = True
            job.joined(SLOT)
            return
        if run.deaf and self.habits.deaf:
            return
        if job.stopping:
            self._end(run, JobState.STOPPED)
        elif job_id in self.doomed or self.random.random() < self.habits.fails:
            self._end(run, JobState.FAILED, "a replica says why")
        elif self.random.random() < self.pace:
            self._make_a_shard(job_id, run)

    def _make_a_shard(self, job_id: str, run: Run) -> None:
        workload = run.job.workload
        try:
            done = committed_shards(self.store, job_id)
            missing = sorted(set(range(workload.num_shards)) - done)
            if not missing:
                self._end(run, JobState.COMPLETED)
                return
            shard = workload.shard(self.random.choice(missing))
            record = jobfactory.record_of(workload, shard, DATA)
            self.store.put(record.objects[0].key, DATA)
            outcome = self.commit(record)
        except ClusterError:
            return  # what an attempt may have written stays: it may have been committed
        if outcome == "won":
            run.job.committed("r", done_of(1, record, outcome))
        if job_id in self.thirsty:
            self._end(run, JobState.PAUSED, "its energy budget is spent")

    def commit(self, record: Any) -> str:
        """Commit an attempt; CommitStateUnknown where that cannot be known."""
        return commit(self.store, record)

    def _end(self, run: Run, state: Any, reason: str = "") -> None:
        at_once(run.job.end(FinishJob(run.job.workload.job_id, state, reason)))


class HastyFleet(FakeFleet):
    """With a planted fault: what it does not know to be committed, it takes for lost."""

    def commit(self, record: Any) -> str:
        key = JobLayout(record.job_id).commit(record.shard)
        try:
            if self.store.put_if_absent(key, record.model_dump_json().encode()):
                return "won"
        except CommitStateUnknown:
            self.store.delete(record.objects[0].key)
        return "lost"
