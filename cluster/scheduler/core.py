"""The state that all parts of the scheduler share: facts, the plan, and commands to return."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Literal

from cluster.scheduler.backlog import Assignment, Job
from cluster.scheduler.commands import Command, RevokeAssignment
from cluster.scheduler.explain import Decision, DecisionQueue, Kind
from cluster.scheduler.fleet import Fleet, Slot
from cluster.scheduler.forecast import Forecast
from cluster.scheduler.plan import Plan
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.request import DemandKey, Performance
from cluster.scheduler.supply import Offer, frontier

TimerKind = Literal["plan", "idle", "late"]


@dataclass
class Core:
    """The scheduler's working state. Created by ``SchedulerState``, whose ``handle`` starts every
    change; the other modules of this package are functions that take it as their first argument.

    Models are opaque keys (revision and precision); times are on the caller's clock.
    """

    # --- What is believed and configured ---

    #: Measured or estimated performance by hardware, model and encoding. Learns from every reported
    #: usage.
    book: ProfileBook
    #: The tuning parameters. Never changes.
    policy: Policy
    #: All replicas and their counts by hardware. Change a replica only inside ``fleet.changing``.
    fleet: Fleet
    #: Power cap of the whole fleet, mW; None: no cap. Set by ``CapChanged``.
    cap_mw: int | None = None
    #: Expected arrivals of work with deadlines. Learns from every ``JobSubmitted``.
    forecast: Forecast = field(default_factory=Forecast)

    # --- Time ---

    #: Time of the newest event, s. Never goes back. Set by ``handle``.
    now_s: float = 0.0
    #: Heap of (time in s, sequence number, kind, name). ``remind`` adds, ``due`` removes. ``name``
    #: is a replica ("idle"), JOB/ASSIGNMENT ("late") or empty ("plan").
    _timers: list[tuple[float, int, TimerKind, str]] = field(default_factory=list)
    #: Timers created so far: timers of equal time fire in the order they were set.
    _timer_count: int = 0

    # --- Jobs ---

    #: Jobs that have not ended, by id, in order of submission. Added by ``JobSubmitted``, removed
    #: when the job ends.
    jobs: dict[str, Job] = field(default_factory=dict)
    #: By model: jobs with shards to assign, most urgent first. Rebuilt by ``replan``; ``feed``
    #: drops jobs that have nothing left to assign.
    order: dict[str, dict[str, Job]] = field(default_factory=dict)
    #: Ids of jobs that may have ended. Filled by ``touch``, emptied before ``handle`` returns.
    #: A dict for its order.
    touched: dict[str, None] = field(default_factory=dict)
    #: Predicted energy assigned so far to each owner's jobs, J. Grows with every assignment. An
    #: owner without open jobs starts again at no less than the least served owner.
    served_j: dict[str, float] = field(default_factory=dict)
    #: Assignments created so far; the newest one's id. Counted by ``next_assignment_id``.
    _assignments: int = 0

    # --- The plan ---

    #: The plan in force. Replaced by ``replan``.
    plan: Plan = field(default_factory=Plan)
    #: Number of the plan in force. Grows when a new plan decides something else.
    plan_number: int = 0
    #: When the plan was made, s. Set by ``replan``.
    planned_s: float = -math.inf
    #: When the next plan is due at the latest, s; inf: not set. Lowered by ``plan_by``, cleared by
    #: ``replan``.
    plan_at_s: float = math.inf
    #: Something happened that the plan does not know. Set by events, cleared when ``handle`` has
    #: made a new plan or set a timer for it.
    stale: bool = False

    # --- Energy spent, and the share of it that goes into probes ---

    #: Energy of all reported work and model loads, J. Unreported energy is not in it.
    spent_j: float = 0.0
    #: Predicted energy of all probes so far, their model loads included, J. Grows when a probe is
    #: assigned or a replica is woken for one.
    probed_j: float = 0.0
    #: Id of the replica that was probed last, or "". At most one probe runs at a time.
    probing: str = ""

    # --- Failures ---

    #: (hardware, model) that may not run, and why. Added by ``losses``; removed when hardware of
    #: that kind joins or a job of that model is submitted.
    blocklisted: dict[tuple[str, str], str] = field(default_factory=dict)
    #: By (hardware, model): failures since its last commit, and the number after which it is
    #: blocklisted. Counted by ``losses``, removed by a commit.
    losses: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    #: By model: reason of the newest loss, for the message of a job that fails. Set by ``losses``.
    last_loss: dict[str, str] = field(default_factory=dict)

    # --- Idling ---

    #: By hardware: moving average of how long its replicas had no work, s. Updated by
    #: ``learn_gap``; decides how long a replica stays warm.
    idle_gap_s: dict[str, float] = field(default_factory=dict)

    # --- Output ---

    #: Decisions and their reasons, until the caller takes them. Added by ``note``.
    decisions: DecisionQueue = field(default_factory=DecisionQueue)
    #: Commands of this call of ``handle``, in order. Emptied when it starts.
    out: list[Command] = field(default_factory=list)

    def remind(self, at_s: float, kind: TimerKind, name: str = "") -> None:
        """Set a timer: ``due`` returns it once ``now_s`` has reached ``at_s``."""
        self._timer_count += 1
        heapq.heappush(self._timers, (at_s, self._timer_count, kind, name))

    def timers(self, kind: TimerKind) -> int:
        """How many timers of that kind are set."""
        return sum(timer[2] == kind for timer in self._timers)

    def plan_by(self, at_s: float) -> None:
        """Make the next plan at ``at_s`` at the latest."""
        if at_s < self.plan_at_s:
            self.plan_at_s = at_s
            self.remind(at_s, "plan")

    def due(self) -> tuple[TimerKind, str] | None:
        """Remove and return the next expired timer; None if there is none."""
        if not self._timers or self._timers[0][0] > self.now_s:
            return None
        _, _, kind, name = heapq.heappop(self._timers)
        return kind, name

    @property
    def next_timer_s(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def touch(self, *job_ids: str) -> None:
        """Have ``handle`` check whether these jobs have ended."""
        self.touched.update(dict.fromkeys(job_ids))

    def next_assignment_id(self) -> int:
        self._assignments += 1
        return self._assignments

    def note(self, kind: Kind, why: str, slot: Slot | None = None, **facts: object) -> None:
        """Record a decision and its reason."""
        if slot is not None:
            facts |= {"replica_id": slot.replica_id, "hardware": slot.hardware}
        decision = Decision(kind, self.now_s, self.plan_number, why, **facts)  # type: ignore[arg-type]
        self.decisions.note(decision)

    def offers(self, demand: DemandKey) -> list[Offer]:
        """The hardware in the fleet that can run its model and is not blocklisted for that, as it
        is in its encoding."""
        model, found = demand.model, []
        for hardware, group in self.fleet.groups.items():
            profile = self.book.profile(hardware, model, demand.encoding)
            nodes = group.total()
            if profile is not None and nodes and (hardware, model) not in self.blocklisted:
                found.append(Offer(profile, nodes, group.up_with(model)))
        return found

    def can_run(self, model: str) -> bool:
        """Whether ``offers`` has any hardware for the model."""
        return any(
            (hardware, model) not in self.blocklisted
            and self.book.profile(hardware, model) is not None
            and group.total()
            for hardware, group in self.fleet.groups.items()
        )

    def planned_point(self, hardware: str, demand: DemandKey) -> Performance | None:
        """The performance at which the plan runs this work on this hardware; None: not there.

        A demand that was granted nothing may use replicas that are up for other demands of its
        model.
        """
        grants = self.plan.grants.get(demand)
        if grants or demand in self.plan.hold_rate:
            grant = (grants or {}).get(hardware)
            return None if grant is None else grant.performance
        profile = self.book.profile(hardware, demand.model, demand.encoding)
        if profile is None or not self.plan.nodes(hardware, demand.model):
            return None
        return frontier(profile, demand.objective)[0]

    def drop_assignment(self, assignment: Assignment) -> None:
        """Remove an assignment from its job and replica. The caller puts its open shards back."""
        job = self.jobs.get(assignment.job_id)
        if job is not None and job.assignments.pop(assignment.assignment_id, None) is not None:
            job.reserved_j = job.reserved_j - assignment.reserved_j if job.assignments else 0.0
        slot = self.fleet.slots.get(assignment.replica_id)
        if slot is None or assignment not in slot.assignments:
            return
        with self.fleet.changing(slot):
            was_first = slot.assignments[0] is assignment
            slot.assignments.remove(assignment)
            if slot.assignments:
                slot.power_mw = max(held.power_mw for held in slot.assignments)
            else:
                slot.since_s = self.now_s
        if was_first and slot.assignments:
            self.begin(slot.assignments[0])
        elif not slot.assignments:
            self.rest(slot)

    def begin(self, assignment: Assignment) -> None:
        """The replica starts the assignment now: set the timer after which it counts as late."""
        assignment.began_s = self.now_s
        self.remind(self.now_s + self.policy.late * assignment.predicted_s + 1.0, "late",
                    f"{assignment.job_id}/{assignment.assignment_id}")  # fmt: skip

    def revoke(self, assignment: Assignment) -> None:
        """Ask the replica to give up the shards of the assignment that it has not generated."""
        if not assignment.revoked:
            assignment.revoked = True
            self.out.append(
                RevokeAssignment(assignment.assignment_id, assignment.replica_id, assignment.job_id)
            )

    def rest(self, slot: Slot) -> None:
        """The replica is idle: set the timer after which it is parked (``patience_s``)."""
        at_s = self.now_s + self.patience_s(slot)
        if not self.now_s <= slot.look_s <= at_s:  # one timer is enough: it sets the next
            slot.look_s = at_s
            self.remind(at_s, "idle", slot.replica_id)

    def patience_s(self, slot: Slot) -> float:
        """How long the replica may stay idle before it is parked, s.

        Until idling has cost as much energy as loading the model again. 0 where pauses have been
        much longer than that (ski rental with a forecast).
        """
        profile = self.book.profile(slot.hardware, slot.model)
        patience_s = self.policy.longest_idle_s
        if profile is not None and profile.standby.idle_w > 0:
            patience_s = min(patience_s, profile.standby.load_j / profile.standby.idle_w)
        return 0.0 if self.idle_gap_s.get(slot.hardware, 0.0) > 2 * patience_s else patience_s

    def learn_gap(self, slot: Slot) -> None:
        """Update the average idle time of the replica's hardware: its pause ends now."""
        gap_s = self.now_s - slot.since_s
        if gap_s <= 0:
            return
        before_s = self.idle_gap_s.get(slot.hardware, gap_s)
        self.idle_gap_s[slot.hardware] = 0.8 * before_s + 0.2 * gap_s
