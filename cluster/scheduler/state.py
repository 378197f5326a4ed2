"""The scheduler: one mutator, ``handle(event) -> commands``. No Ray, torch, clock or I/O.

Whoever drives it, a coordinator or a simulator, feeds it what happened and carries out what it
answers. Work per event does not grow with shards, and with nodes at most as a logarithm.

    need.py        jobs -> the rate that their deadlines ask for
    merit.py       rates and beliefs -> a plan: how much of which hardware, at which point
    commitment.py  the plan -> replicas that wake and park
    dispatch.py    awake replicas -> leases
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cluster.scheduler.backlog import Job, Lease
from cluster.scheduler.commands import Command, FinishJob, RemindMe
from cluster.scheduler.commitment import REPLAN_AT_LEAST_S, park, park_if_idle, replan
from cluster.scheduler.core import Core
from cluster.scheduler.dispatch import broke, feed, probe_point, second_attempt
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
from cluster.scheduler.fleet import Fleet, Replica
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.terms import JobEnd

BUDGET_SPENT = "its energy budget has no room for another shard"


class SchedulerState:
    """The fleet, the jobs and the plan. ``handle`` is the only mutator."""

    def __init__(
        self, book: ProfileBook, policy: Policy | None = None, cap_w: float | None = None
    ) -> None:
        policy = policy or Policy()
        self._core = Core(book, policy, Fleet(policy.leases), _milli(cap_w))
        self._submitted = 0
        self._reminder_s: float | None = None
        self._touched: dict[str, None] = {}  # jobs that may be over now
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

    def handle(self, event: Event) -> list[Command]:
        """Take in one event and answer with what is to be done now."""
        core = self._core
        core.now_s = max(core.now_s, event.at_s)
        core.out = []
        self._on[type(event)](event)
        while (timer := core.due()) is not None:
            self._timer(*timer)
        self._end_jobs()
        if core.stale:
            if core.now_s >= core.planned_s + REPLAN_AT_LEAST_S:
                replan(core)
                self._touch(*(j.terms.job_id for j in core.jobs.values() if j.has_budget))
                self._end_jobs()
            else:
                core.plan_by(core.planned_s + REPLAN_AT_LEAST_S)
                core.stale = False
        self._remind()
        return core.out

    def take_decisions(self) -> list[Decision]:
        """What was decided and why, since the last call; only the newest are kept."""
        return self._core.diary.take()

    @property
    def jobs(self) -> dict[str, Job]:
        """The jobs that are not over. To look at, not to change."""
        return self._core.jobs

    @property
    def replicas(self) -> dict[str, Replica]:
        """All replicas. To look at, not to change."""
        return self._core.fleet.replicas

    @property
    def power_w(self) -> float:
        """What the replicas that are up may draw together, as far as was decided."""
        return self._core.fleet.power_mw / 1000

    def validate(self) -> None:
        """Raise AssertionError if an invariant is broken. For tests and debugging."""
        core = self._core
        core.fleet.validate()
        leases = {lease.lease_id for r in core.fleet.replicas.values() for lease in r.leases}
        for job in core.jobs.values():
            job.validate()
            assert set(job.leases) <= leases, "a lease that no replica has"
            assert job.leases or abs(job.reserved_j) < 1e-6
        assert sum(len(job.leases) for job in core.jobs.values()) == len(leases)

    def _job_submitted(self, event: JobSubmitted) -> None:
        core, terms = self._core, event.job
        if terms.job_id in core.jobs:
            return
        self._submitted += 1
        core.jobs[terms.job_id] = Job.of(terms, self._submitted, event.done)
        if terms.deadline_s is not None:
            slack_s = terms.deadline_s - core.now_s
            core.forecast.came((terms.model, terms.objective), terms.images, slack_s, core.now_s)
        owners = {job.terms.owner for job in core.jobs.values()} - {terms.owner}
        least_j = min((core.served_j.get(owner, 0.0) for owner in owners), default=0.0)
        # A newcomer owes nothing, nor is it owed what others had while it was away
        core.served_j[terms.owner] = max(core.served_j.get(terms.owner, 0.0), least_j)
        for key in [key for key in core.barred if key[1] == terms.model]:
            del core.barred[key]
        core.remind(core.now_s + core.policy.desert_s, "desert", terms.job_id)
        core.stale = True
        self._touch(terms.job_id)

    def _stop_requested(self, event: StopRequested) -> None:
        job = self._core.jobs.get(event.job_id)
        if job is not None:
            job.stopping = "cancelled" if event.cancel else "stopped"
            for lease in job.leases.values():
                self._core.revoke(lease)
            self._touch(event.job_id)

    def _replica_joined(self, event: ReplicaJoined) -> None:
        core = self._core
        if event.replica_id in core.fleet.replicas:
            return
        replica = Replica(event.replica_id, event.node_id, event.hardware, since_s=core.now_s)
        core.fleet.join(replica)
        for key in [key for key in core.barred if key[0] == event.hardware]:
            del core.barred[key]
        core.stale = bool(core.jobs)

    def _replica_awake(self, event: ReplicaAwake) -> None:
        core = self._core
        replica = core.fleet.replicas.get(event.replica_id)
        if event.usage is not None:
            core.spent_j += (event.usage.energy_mj or 0) / 1000
            if replica is not None:
                core.book.observe_load(replica.hardware, event.model, event.usage)
        if replica is None or replica.state != "waking" or replica.model != event.model:
            return
        core.fleet.lift(replica)
        replica.state, replica.since_s, replica.why = "awake", core.now_s, ""
        core.fleet.place(replica)
        if replica.draining:
            park(core, replica, "its node is draining")
        elif not feed(core, replica):
            if replica.point is not None and self._is_dear(replica):
                probe_point(core, replica, replica.point, core.policy.probe_s)
            if not replica.leases:
                core.rest(replica)

    def _is_dear(self, replica: Replica) -> bool:
        """It was woken for a probe: the plan has no work for its kind."""
        return self._core.plan.nodes(replica.hardware, replica.model) == 0

    def _replica_parked(self, event: ReplicaParked) -> None:
        replica = self._core.fleet.replicas.get(event.replica_id)
        if replica is not None and replica.state == "parking":
            self._to_parked(replica, replica.why)

    def _to_parked(self, replica: Replica, why: str) -> None:
        core = self._core
        core.fleet.lift(replica)
        replica.state, replica.model, replica.point = "parked", "", None
        replica.power_mw, replica.why = 0, why
        core.fleet.place(replica)
        core.stale = bool(core.jobs)

    def _replica_lost(self, event: ReplicaLost) -> None:
        core = self._core
        replica = core.fleet.replicas.get(event.replica_id)
        if replica is None or (replica.state == "parked" and not event.gone):
            return
        key = replica.hardware, replica.model
        if replica.model and replica.state != "parking":
            core.losses[key] += 1
            core.last_loss[replica.model] = event.reason
            most = max(core.policy.max_fruitless, core.fleet.groups[replica.hardware].total())
            if event.fatal or core.losses[key] > most:
                core.barred[key] = event.reason
                core.losses[key] = 0
                self._touch(*(j.terms.job_id for j in core.jobs.values()))
        self._drop_leases(replica, event.reason)
        if event.gone:
            core.fleet.leave(replica)
            core.stale = bool(core.jobs)
        else:
            self._to_parked(replica, f"was lost: {event.reason}")
            replica.since_s = core.now_s

    def _drop_leases(self, replica: Replica, reason: str) -> None:
        """Its leases are lost: the shard it was at is suspected, the others just wait again."""
        core = self._core
        for number, lease in enumerate(list(replica.leases)):
            job = core.jobs[lease.job_id]
            runs = list(lease.open)
            job.spent_j += self._lost_j(lease) if not number else 0.0
            core.drop_lease(lease)
            if not number and runs and not lease.revoked:
                self._blame(job, runs[0][0], reason)
            for run in runs:
                job.put_back(*run)
            self._touch(job.terms.job_id)
        core.stale = True

    def _lost_j(self, lease: Lease) -> float:
        """What a lost lease took beyond its commits, by prediction: nobody reports it."""
        spent_s = self._core.now_s - lease.began_s
        share = 1.0 if lease.predicted_s <= 0 else min(1.0, spent_s / lease.predicted_s)
        return max(0.0, share - (1 - lease.open_share)) * lease.predicted_j

    def _blame(self, job: Job, shard: int, reason: str) -> None:
        if job.stopping or shard in job.done:
            return
        if job.blame(shard, reason, self._core.policy.max_attempts):
            self._core.note("set_aside", reason, job_id=job.terms.job_id, first=shard,
                            stop=shard + 1)  # fmt: skip

    def _node_lost(self, event: NodeLost) -> None:
        for name in list(self._core.fleet.nodes.get(event.node_id, ())):
            self._replica_lost(ReplicaLost(event.at_s, name, event.reason, gone=True))

    def _node_draining(self, event: NodeDraining) -> None:
        core = self._core
        for name in list(core.fleet.nodes.get(event.node_id, ())):
            replica = core.fleet.replicas[name]
            core.fleet.lift(replica)
            replica.draining, replica.drain_until_s = True, event.until_s
            core.fleet.place(replica)
            ends_s = core.now_s
            for lease in replica.leases:
                ends_s = max(ends_s, lease.began_s) + lease.predicted_s * lease.open_share
                if event.until_s is not None and ends_s > event.until_s:
                    core.revoke(lease)
            if replica.idle:
                park(core, replica, "its node is draining")
        core.stale = True

    def _shards_committed(self, event: ShardsCommitted) -> None:
        core = self._core
        replica = core.fleet.replicas.get(event.replica_id)
        job = core.jobs.get(event.job_id)
        if event.usage is not None and event.usage.energy_mj is not None:
            core.spent_j += event.usage.energy_mj / 1000
        lease = None if job is None else job.leases.get(event.lease_id)
        if replica is not None and lease is not None:
            core.losses[replica.hardware, replica.model] = 0
            if event.usage is not None:
                core.book.observe(replica.hardware, replica.model, lease.point, event.usage)
        if job is None:
            return
        if event.usage is not None and event.usage.energy_mj is not None:
            job.spent_j += event.usage.energy_mj / 1000
        elif lease is not None:  # unknown: what was predicted counts against the budget
            unheard = event.stop - event.first
            unheard -= sum(b - a for a, b in lease.open.missing(event.first, event.stop))
            job.spent_j += lease.predicted_j * unheard / lease.shards
        job.finish(event.first, event.stop)
        if lease is not None:
            self._answered(job, lease, event.first, event.stop)
        for twin in [other for other in job.leases.values() if other.twin] if job.twins else []:
            if twin is not lease and self._answered(job, twin, event.first, event.stop):
                core.revoke(twin)
        if replica is not None:
            self._next(replica)
        if not job.leases:
            core.stale = core.stale or job.has_work
            self._touch(job.terms.job_id)

    def _answered(self, job: Job, lease: Lease, first: int, stop: int) -> bool:
        """The replica is done with these shards of the lease; whether with all of it."""
        gone = lease.open.remove(first, stop)
        job.reserved_j -= lease.predicted_j * gone / lease.shards
        if lease.open:
            return False
        self._core.drop_lease(lease)
        return True

    def _next(self, replica: Replica) -> None:
        """It may have room for more work, or nothing to do on a node that is to go."""
        if replica.draining and replica.idle:
            park(self._core, replica, "its node is draining")
        else:
            feed(self._core, replica)

    def _shard_failed(self, event: ShardFailed) -> None:
        core = self._core
        job = core.jobs.get(event.job_id)
        if event.usage is not None and event.usage.energy_mj is not None:
            core.spent_j += event.usage.energy_mj / 1000
            if job is not None:
                job.spent_j += event.usage.energy_mj / 1000
        lease = None if job is None else job.leases.get(event.lease_id)
        if job is None or lease is None or event.shard not in lease.open:
            return
        self._answered(job, lease, event.shard, event.shard + 1)
        if event.fatal and not job.stopping:
            self._end(job, "failed", event.reason)
            return
        if not event.revoked:
            self._blame(job, event.shard, event.reason)
        job.put_back(event.shard, event.shard + 1)
        core.stale = core.stale or job.has_work
        self._touch(job.terms.job_id)
        replica = core.fleet.replicas.get(event.replica_id)
        if replica is not None:
            self._next(replica)

    def _cap_changed(self, event: CapChanged) -> None:
        self._core.cap_mw = _milli(event.watts)
        for replica in list(self._core.fleet.replicas.values()):
            over = self._core.cap_mw is not None and self._core.fleet.power_mw > self._core.cap_mw
            if over and replica.idle:
                park(self._core, replica, "the fleet is over its power cap")
        self._core.stale = True

    def _timer(self, kind: str, name: str) -> None:
        core = self._core
        if kind == "plan":
            core.stale = core.stale or (bool(core.jobs) and core.now_s >= core.plan_at_s)
        elif kind == "idle":
            replica = core.fleet.replicas.get(name)
            if replica is not None:
                park_if_idle(core, replica)
        elif kind == "desert":
            self._touch(name)
        else:
            job_id, _, lease_id = name.rpartition("/")
            job = core.jobs.get(job_id)
            if job is not None and int(lease_id) in job.leases:
                second_attempt(core, job.leases[int(lease_id)])

    def _touch(self, *job_ids: str) -> None:
        self._touched.update(dict.fromkeys(job_ids))

    def _end_jobs(self) -> None:
        """End the jobs that are over."""
        while self._touched:
            job_id = next(iter(self._touched))
            del self._touched[job_id]
            job = self._core.jobs.get(job_id)
            if job is not None:
                self._end_if_over(job)

    def _end_if_over(self, job: Job) -> None:
        core, policy, aside = self._core, self._core.policy, job.set_aside
        if len(job.done) + len(aside) == job.terms.shards:
            if not job.done_images:
                self._end(job, "failed", f"no shard could be made; {_last(job)}")
            else:
                self._end(job, "completed_with_errors" if aside else "completed", _last(job))
        elif job.stopping:
            if not job.leases:
                state: JobEnd = "cancelled" if job.stopping == "cancelled" else "stopped"
                self._end(job, state, f"{state} on request")
        elif len(aside) > max(policy.max_set_aside, policy.set_aside_share * job.terms.shards):
            self._end(job, "failed", f"{len(aside)} shards were set aside; {_last(job)}")
        elif broke(core, job):
            core.note("pause", BUDGET_SPENT, job_id=job.terms.job_id)
            budget_j = job.terms.energy_budget_j
            reason = f"{BUDGET_SPENT}: {job.spent_j:.1f} J of {budget_j:.1f} J are spent"
            self._end(job, "paused", reason)
        elif not job.leases and not core.can_run(job.terms.model):
            self._end_without_replicas(job)

    def _end_without_replicas(self, job: Job) -> None:
        core, model = self._core, job.terms.model
        barred = [why for (_, of_model), why in core.barred.items() if of_model == model]
        why = barred[-1] if barred else core.last_loss.get(model, "none has joined")
        if barred or core.now_s >= self._since_s(job) + core.policy.desert_s:
            self._end(job, "failed", f"no replica is left; the last loss: {why}")
        else:
            core.remind(core.now_s + core.policy.desert_s, "desert", job.terms.job_id)

    def _since_s(self, job: Job) -> float:
        """Since when the job has had nobody to run it."""
        if job.alone_s is None:
            job.alone_s = self._core.now_s
        return job.alone_s

    def _end(self, job: Job, state: JobEnd, reason: str) -> None:
        core = self._core
        freed = [core.fleet.replicas[lease.replica_id] for lease in job.leases.values()]
        for lease in list(job.leases.values()):
            core.revoke(lease)
            core.drop_lease(lease)
        del core.jobs[job.terms.job_id]
        core.order.get(job.terms.model, {}).pop(job.terms.job_id, None)
        core.stale = bool(core.jobs)
        core.out.append(FinishJob(job.terms.job_id, state, reason, tuple(job.set_aside.values())))
        for replica in freed:
            self._next(replica)

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


def _last(job: Job) -> str:
    if not job.set_aside:
        return ""
    last = list(job.set_aside.values())[-1]
    return f"shard {last.shard} failed {last.attempts} times; the last: {last.reason}"


def _milli(watts: float | None) -> int | None:
    return None if watts is None else int(watts * 1000)
