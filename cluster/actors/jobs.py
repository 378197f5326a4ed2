"""The jobs of a coordinator: taken on, stopped on request, and written down when they are over."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from functools import partial

from cluster.actors.event_queue import EventQueue
from cluster.actors.job_run import JobBook, JobRun
from cluster.actors.knowledge import Knowledge
from cluster.actors.options import RunRequest
from cluster.actors.reasons import plain
from cluster.actors.slots import CLOSE_S, Slots
from cluster.actors.tasks import Tasks
from cluster.clock import monotonic_s
from cluster.errors import ClusterError
from cluster.progress import Snapshot
from cluster.scheduler.commands import FinishJob
from cluster.scheduler.events import JobSubmitted, StopRequested
from cluster.states import JobState
from cluster.stopping import Grace, left_s
from cluster.storage.object_store import ObjectStore


class Jobs:
    """What is done to jobs. own: the coordinator is one run's own, and ends with it."""

    def __init__(
        self,
        store: ObjectStore,
        book: JobBook,
        slots: Slots,
        knowledge: Knowledge,
        events: EventQueue,
        *,
        tasks: Tasks,
        own: bool,
    ) -> None:
        self._store = store
        self._tasks = tasks
        self._served: dict[str, JobRun] = {}  # the service's, until their server has seen the end
        self._book = book
        self._slots = slots
        self._knowledge = knowledge
        self._events = events
        self._own = own

    async def submit(self, run: RunRequest) -> JobRun:
        """Take the job on, unless it is running already."""
        job_id = run.workload.job_id
        if job_id in self._book:
            return self._book[job_id]
        job = self._book[job_id] = JobRun(run.workload, self._store, run.epoch)
        await self._open(job, run)
        return job

    def begin(self, run: RunRequest) -> bool:
        """Take on a job of the service, or go on with its run under a newer claim; does not wait.

        False if an earlier run of it is still ending, or a newer claim has it: ask again later.
        """
        job_id, epoch = run.workload.job_id, run.epoch
        assert epoch is not None
        job = self._book.get(job_id)
        if job is None:
            earlier = self._served.get(job_id)
            if earlier is not None and earlier.epoch >= epoch:
                return earlier.epoch == epoch
            job = self._served[job_id] = self._book[job_id] = JobRun(
                run.workload, self._store, epoch
            )
            self._tasks.do(self._open(job, run), partial(self._broke, job))
            return True
        if job.epoch == epoch:
            return True
        if not job.served or job.stopping or job.epoch > epoch:
            return False
        job.taken_over(epoch)
        return True

    def snapshots(self) -> dict[str, Snapshot]:
        """The service's jobs that are under way, and those over since, until they are forgotten."""
        return {job_id: job.snapshot() for job_id, job in self._served.items()}

    def forget(self, job_id: str, epoch: int) -> None:
        """Show the run no more, if it is over and no newer claim has taken it."""
        job = self._served.get(job_id)
        if job is not None and job.over.is_set() and job.epoch <= epoch:
            del self._served[job_id]

    def _broke(self, job: JobRun, error: BaseException) -> None:
        """The job could not be taken on, for a reason that nobody has thought of."""
        finish = FinishJob(job.workload.job_id, JobState.FAILED, plain(error))
        self._tasks.do(self.end(job, finish))

    async def _open(self, job: JobRun, run: RunRequest) -> None:
        """Read what is committed of the job, and give it to the scheduler."""
        job_id = run.workload.job_id
        try:
            done = await asyncio.to_thread(job.open)
        except ClusterError as error:
            await self.end(job, FinishJob(job_id, JobState.FAILED, str(error)))
            return
        self._knowledge.decisions.begin(job_id)
        specs = [slot.spec for slot in self._slots.handles.values()]
        self._knowledge.learn_model(run.workload, run.facts, specs)
        request = replace(run.request, model=job.model)
        if request.deadline_s is not None:
            request = replace(request, deadline_s=monotonic_s() + request.deadline_s)
        self._events.put(JobSubmitted(monotonic_s(), request, done))
        if job.stopping:  # asked for before there was a job to stop
            self.stop(job_id, job.grace)

    def stop(self, job_id: str, grace: Grace, epoch: int | None = None) -> None:
        """End the job soon; a job of the service or of a run's own fleet by the end of the grace,
        whatever the replicas are at.

        epoch: whose server asks; a run that a newer claim has taken over is not its any more.
        """
        job = self._book.get(job_id)
        if job is not None:
            if epoch is not None and job.epoch > epoch:
                return
            job.stop(grace)
        self._events.put(StopRequested(monotonic_s(), job_id))
        bounded = self._own or (job is not None and job.served)
        if job is not None and bounded and grace.shards_s < math.inf:
            for meter in self._slots.meters.values():
                meter.write()  # should even the grace not be granted, most of the log is there
            wait_s = max(0.0, grace.shards_s - monotonic_s())
            asyncio.get_running_loop().call_later(wait_s, self._cut_short, job)

    def _cut_short(self, job: JobRun) -> None:
        """The shards that the job still has under way would not be done in time."""
        job_id = job.workload.job_id
        if self._book.get(job_id) is not job:
            return
        for slot in self._slots.handles.values():
            if job_id in slot.jobs_under_way:
                reason = "its shards would not have been done before the run had to end"
                self._slots.lose(slot, reason)

    async def end(self, job: JobRun, finish: FinishJob) -> None:
        """The job is over for the scheduler: close its part of every replica, and write it down."""
        job.stop_clock()
        slots = [slot for name in job.replicas if (slot := self._slots.get(name)) is not None]
        if self._own:
            await asyncio.gather(*(self._slots.close(slot) for slot in slots))
            await self._slots.leave_meters(job.grace.log_s)
        else:
            await asyncio.gather(*(self._slots.end_job(slot, job) for slot in slots))
        explained = asyncio.wrap_future(self._knowledge.decisions.end(finish.job_id))
        await asyncio.wait([explained], timeout=left_s(job.grace.rest_s, CLOSE_S))
        learned = asyncio.create_task(asyncio.to_thread(self._knowledge.write_down))
        await asyncio.wait([learned], timeout=left_s(job.grace.rest_s))
        await job.end(finish)
        self._book.pop(finish.job_id, None)
