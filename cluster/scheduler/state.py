"""The scheduler: events in, commands out (``handle``). No Ray, torch, clock or I/O.

Its caller, a coordinator or a simulator, reports events and carries out the returned commands. The
time per event does not grow with the number of shards, and at most logarithmically with nodes.

    demand.py      jobs -> the rate that their deadlines require
    supply.py      profiles -> what an image would cost on each hardware
    plan.py        demand and supply -> how many replicas of which hardware, at which point
    commitment.py  the plan -> replicas that wake and park
    dispatch.py    awake replicas -> assignments
    losses.py      lost replicas and failed shards -> retries, and hardware to stop using
    endings.py     when a job has ended, and in which state
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.scheduler.backlog import Assignment, Job
from cluster.scheduler.commands import Command, FinishJob, RemindMe
from cluster.scheduler.commitment import REPLAN_AT_LEAST_S, park, park_if_idle, replan
from cluster.scheduler.core import Core
from cluster.scheduler.dispatch import feed, probe_point, second_attempt
from cluster.scheduler.endings import ending, may_be_over
from cluster.scheduler.events import (
    CapChanged,
    Event,
    JobSubmitted,
    NodeDraining,
    NodeLost,
    ReplicaAwake,
    ReplicaJoined,
    ReplicaLost,
    ReplicaParked,
    ShardFailed,
    ShardsCommitted,
    StopRequested,
    Tick,
)
from cluster.scheduler.explain import Decision
from cluster.scheduler.fleet import Fleet, Slot
from cluster.scheduler.forecast import Forecast
from cluster.scheduler.losses import count_loss, drop_assignments, shard_failed
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.request import joules
from cluster.states import JobEnd, JobState, ReplicaState


class SchedulerState:
    """The fleet, the jobs and the plan. ``handle`` is the only mutator."""

    def __init__(
        self,
        book: ProfileBook,
        policy: Policy | None = None,
        cap_w: float | None = None,
        forecast: Forecast | None = None,
    ) -> None:
        policy = policy or Policy()
        self._core = Core(
            book, policy, Fleet(policy.assignments), _milli(cap_w), forecast or Forecast()
        )
        self._submitted = 0
        self._reminder_s: float | None = None
        self._on: dict[type[Any], Callable[[Any], None]] = {
            JobSubmitted: self._job_submitted,
            StopRequested: self._stop_requested,
            ReplicaJoined: self._replica_joined,
            ReplicaAwake: self._replica_awake,
            ReplicaParked: self._replica_parked,
            ReplicaLost: self._replica_lost,
            NodeLost: self._node_lost,
            NodeDraining: self._node_draining,
            ShardsCommitted: self._shards_committed,
            ShardFailed: self._shard_failed,
            CapChanged: self._cap_changed,
            Tick: lambda _: None,
        }

    def handle(self, *events: Event) -> list[Command]:
        """Apply one or more events and return the commands to carry out now, in order.

        Pass events that arrived together in one call, so that one plan covers all of them: of
        replicas that join together, expensive ones are then not woken for work that cheap ones
        can do.
        """
        core = self._core
        core.out = []
        for event in events:
            core.now_s = max(core.now_s, event.at_s)
            self._on[type(event)](event)
        while (timer := core.due()) is not None:
            self._timer(*timer)
        self._end_jobs()
        if core.stale:
            if core.now_s >= core.planned_s + REPLAN_AT_LEAST_S:
                replan(core)
                core.touch(*(j.request.job_id for j in core.jobs.values() if may_be_over(j)))
                self._end_jobs()
            else:
                core.plan_by(core.planned_s + REPLAN_AT_LEAST_S)
                core.stale = False
        self._remind()
        return core.out

    def take_decisions(self) -> list[Decision]:
        """Decisions and their reasons since the last call, at most the newest 10,000."""
        return self._core.decisions.take()

    @property
    def jobs(self) -> dict[str, Job]:
        """Jobs that have not ended, by id. Do not change them."""
        return self._core.jobs

    @property
    def slots(self) -> dict[str, Slot]:
        """All slots. To look at, not to change."""
        return self._core.fleet.slots

    @property
    def power_w(self) -> float:
        """Power that the fleet may draw under the decisions made so far, W."""
        return self._core.fleet.power_mw / 1000

    @property
    def core(self) -> Core:
        """All that the scheduler knows. To look at, not to change."""
        return self._core

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests and debugging."""
        core = self._core
        core.fleet.validate()
        assignments = {
            assignment.assignment_id
            for r in core.fleet.slots.values()
            for assignment in r.assignments
        }
        for job in core.jobs.values():
            job.validate()
            assert set(job.assignments) <= assignments, "a lease that no replica has"
            assert job.assignments or abs(job.reserved_j) < 1e-6
        assert sum(len(job.assignments) for job in core.jobs.values()) == len(assignments)

    def _job_submitted(self, event: JobSubmitted) -> None:
        core, request = self._core, event.job
        if request.job_id in core.jobs:
            return
        self._submitted += 1
        if not event.done:  # else it came before
            core.forecast.observe(core.now_s, request)
        owners = {job.request.owner for job in core.jobs.values()}
        if request.owner not in owners:  # it owes nothing, nor is it owed what others had meanwhile
            least_j = min((core.served_j.get(owner, 0.0) for owner in owners), default=0.0)
            core.served_j[request.owner] = max(core.served_j.get(request.owner, 0.0), least_j)
        core.jobs[request.job_id] = Job.of(request, self._submitted, core.now_s, event.done)
        for key in [key for key in core.blocklisted if key[1] == request.model]:
            del core.blocklisted[key]
        core.stale = True
        core.touch(request.job_id)

    def _stop_requested(self, event: StopRequested) -> None:
        core = self._core
        job = core.jobs.get(event.job_id)
        if job is not None:
            cancel = event.cancel or job.stopping == JobState.CANCELLED
            job.stopping = JobState.CANCELLED if cancel else JobState.STOPPED
            for assignment in job.assignments.values():
                core.revoke(assignment)
            core.touch(event.job_id)

    def _replica_joined(self, event: ReplicaJoined) -> None:
        core = self._core
        if event.replica_id in core.fleet.slots:
            return
        slot = Slot(event.replica_id, event.node_id, event.hardware, since_s=core.now_s)
        core.fleet.join(slot)
        for key in [key for key in core.blocklisted if key[0] == event.hardware]:
            del core.blocklisted[key]
        core.stale = bool(core.jobs)

    def _replica_awake(self, event: ReplicaAwake) -> None:
        core = self._core
        slot = core.fleet.slots.get(event.replica_id)
        if event.usage is not None:
            core.spent_j += joules(event.usage) or 0.0
            if slot is not None:
                core.book.observe_load(slot.hardware, event.model, event.usage)
        if slot is None or slot.state != ReplicaState.WAKING or slot.model != event.model:
            return
        with core.fleet.changing(slot):
            slot.state, slot.since_s, slot.why = ReplicaState.AWAKE, core.now_s, ""
            to_probe, slot.probe = slot.probe, False
        if slot.draining:
            park(core, slot, "its node is draining")
        elif not feed(core, slot):
            point = slot.point if to_probe else None
            if point is None or not probe_point(core, slot, point):
                core.rest(slot)

    def _replica_parked(self, event: ReplicaParked) -> None:
        slot = self._core.fleet.slots.get(event.replica_id)
        if slot is not None and slot.state == ReplicaState.PARKING:
            self._to_parked(slot, slot.why)

    def _to_parked(self, slot: Slot, why: str) -> None:
        core = self._core
        with core.fleet.changing(slot):
            slot.state, slot.model, slot.point = ReplicaState.PARKED, "", None
            slot.power_mw, slot.probe, slot.why = 0, False, why
        core.stale = bool(core.jobs)

    def _replica_lost(self, event: ReplicaLost) -> None:
        core = self._core
        slot = core.fleet.slots.get(event.replica_id)
        if slot is None or (slot.state == ReplicaState.PARKED and not event.gone):
            return
        if slot.state == ReplicaState.WAKING or slot.assignments:
            count_loss(core, slot, event.reason, fatal=event.fatal)
        drop_assignments(core, slot, event.reason, event.at_work)
        if event.gone:
            core.fleet.leave(slot)
            core.stale = bool(core.jobs)
        else:
            self._to_parked(slot, f"was lost: {event.reason}")
            slot.since_s = core.now_s

    def _node_lost(self, event: NodeLost) -> None:
        for name in list(self._core.fleet.nodes.get(event.node_id, ())):
            self._replica_lost(ReplicaLost(event.at_s, name, event.reason, gone=True))

    def _node_draining(self, event: NodeDraining) -> None:
        core = self._core
        for name in list(core.fleet.nodes.get(event.node_id, ())):
            slot = core.fleet.slots[name]
            with core.fleet.changing(slot):
                slot.draining, slot.drain_until_s = True, event.until_s
            ends_s = core.now_s
            for assignment in slot.assignments:
                ends_s = (
                    max(ends_s, assignment.began_s) + assignment.predicted_s * assignment.open_share
                )
                if event.until_s is not None and ends_s > event.until_s:
                    core.revoke(assignment)
            if slot.idle:
                park(core, slot, "its node is draining")
        core.stale = True

    def _shards_committed(self, event: ShardsCommitted) -> None:
        core = self._core
        slot = core.fleet.slots.get(event.replica_id)
        job = core.jobs.get(event.job_id)
        took_j = joules(event.usage)
        core.spent_j += took_j or 0.0
        assignment = None if job is None else job.assignments.get(event.assignment_id)
        if slot is not None and job is not None and assignment is not None:
            core.losses.pop((slot.hardware, slot.model), None)
            if event.usage is not None:
                key, point = (slot.hardware, slot.model), assignment.point
                core.book.observe(*key, point, event.usage, job.request.encoding)
        if job is None:
            return
        if (
            took_j is None and assignment is not None
        ):  # what was predicted counts against the budget
            unheard = event.stop - event.first
            unheard -= sum(b - a for a, b in assignment.open.missing(event.first, event.stop))
            took_j = assignment.predicted_j * unheard / assignment.shards
        job.spent_j += took_j or 0.0
        job.finish(event.first, event.stop)
        if assignment is not None:
            self._answered(job, assignment, event.first, event.stop)
        for twin in (
            [other for other in job.assignments.values() if other.twin] if job.twins else []
        ):
            if twin is not assignment and self._answered(job, twin, event.first, event.stop):
                core.revoke(twin)
                self._next(core.fleet.slots[twin.replica_id])
        if slot is not None:
            self._next(slot)
        if not job.assignments:
            core.stale = core.stale or job.has_work
            core.touch(job.request.job_id)

    def _answered(self, job: Job, assignment: Assignment, first: int, stop: int) -> bool:
        """The replica has reported these shards; True if none of the assignment is open now."""
        gone = assignment.open.remove(first, stop)
        job.reserved_j -= assignment.predicted_j * gone / assignment.shards
        if assignment.open:
            return False
        self._core.drop_assignment(assignment)
        return True

    def _next(self, slot: Slot) -> None:
        """Give the replica more work, or park it if it is idle on a draining node."""
        if slot.draining and slot.idle:
            park(self._core, slot, "its node is draining")
        else:
            feed(self._core, slot)

    def _shard_failed(self, event: ShardFailed) -> None:
        core = self._core
        job = core.jobs.get(event.job_id)
        took_j = joules(event.usage)
        core.spent_j += took_j or 0.0
        assignment = None if job is None else job.assignments.get(event.assignment_id)
        if job is None:
            return
        if (
            took_j is None
            and assignment is not None
            and event.shard in assignment.open
            and not event.revoked
        ):
            took_j = assignment.predicted_j / assignment.shards
        job.spent_j += took_j or 0.0
        if assignment is None or event.shard not in assignment.open:
            return
        self._answered(job, assignment, event.shard, event.shard + 1)
        if event.fatal and not job.stopping:
            self._end(job, JobState.FAILED, event.reason)
            self._next(core.fleet.slots[assignment.replica_id])
            return
        if not event.revoked:
            shard_failed(
                core, job, event.shard, core.fleet.slots[assignment.replica_id], event.reason
            )
        job.put_back(event.shard, event.shard + 1)
        core.stale = core.stale or job.has_work
        core.touch(job.request.job_id)
        self._next(core.fleet.slots[assignment.replica_id])

    def _cap_changed(self, event: CapChanged) -> None:
        self._core.cap_mw = _milli(event.watts)
        self._core.stale = True

    def _timer(self, kind: str, name: str) -> None:
        core = self._core
        if kind == "plan":
            core.stale = core.stale or (bool(core.jobs) and core.now_s >= core.plan_at_s)
        elif kind == "idle":
            slot = core.fleet.slots.get(name)
            if slot is not None:
                park_if_idle(core, slot)
        else:
            job_id, _, assignment_id = name.rpartition("/")
            job = core.jobs.get(job_id)
            if job is not None and int(assignment_id) in job.assignments:
                second_attempt(core, job.assignments[int(assignment_id)])

    def _end_jobs(self) -> None:
        """End the touched jobs that have ended."""
        touched = self._core.touched
        while touched:
            job_id = next(iter(touched))
            del touched[job_id]
            job = self._core.jobs.get(job_id)
            end = None if job is None else ending(self._core, job)
            if job is not None and end is not None:
                self._end(job, *end)

    def _end(self, job: Job, state: JobEnd, reason: str) -> None:
        core = self._core
        if state == JobState.PAUSED:
            core.note("pause", reason, job_id=job.request.job_id)
        freed = [core.fleet.slots[assignment.replica_id] for assignment in job.assignments.values()]
        for assignment in list(job.assignments.values()):
            core.revoke(assignment)
            core.drop_assignment(assignment)
        del core.jobs[job.request.job_id]
        core.order.get(job.request.model, {}).pop(job.request.job_id, None)
        core.stale = bool(core.jobs)
        core.out.append(FinishJob(job.request.job_id, state, reason, tuple(job.set_aside.values())))
        for slot in freed:
            self._next(slot)

    def _remind(self) -> None:
        """Ask for a Tick when the next timer is due."""
        due_s = self._core.next_timer_s
        if due_s is not None and (
            self._reminder_s is None
            or due_s < self._reminder_s
            or self._reminder_s <= self._core.now_s
        ):
            self._reminder_s = due_s
            self._core.out.append(RemindMe(due_s))


def _milli(watts: float | None) -> int | None:
    return None if watts is None else int(watts * 1000)
