"""What the parts of the scheduler share: the facts, the plan, and the commands of this call."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field
from typing import Literal

from cluster.scheduler.backlog import Assignment, Job
from cluster.scheduler.commands import Command, RevokeAssignment
from cluster.scheduler.explain import Decision, Diary, Kind
from cluster.scheduler.fleet import Fleet, Slot
from cluster.scheduler.forecast import Forecast
from cluster.scheduler.plan import Plan
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.request import Objective, Performance
from cluster.scheduler.supply import Offer, frontier

TimerKind = Literal["plan", "idle", "late"]


@dataclass
class Core:
    """order: of jobs to assign from, by model. barred: hardware that cannot run a model, and why.
    losses: in a row, of hardware with a model, and how many of them bar it.

    served_j: predicted energy assigned to each owner, relative to the least served one. spent_j:
    all energy that came to be known; probed_j: spent on finding out.
    """

    book: ProfileBook
    policy: Policy
    fleet: Fleet
    cap_mw: int | None = None
    forecast: Forecast = field(default_factory=Forecast)
    now_s: float = 0.0
    jobs: dict[str, Job] = field(default_factory=dict)
    order: dict[str, dict[str, Job]] = field(default_factory=dict)
    plan: Plan = field(default_factory=Plan)
    plan_number: int = 0
    planned_s: float = -math.inf
    plan_at_s: float = math.inf
    stale: bool = False
    touched: dict[str, None] = field(default_factory=dict)  # jobs that may be over now
    served_j: dict[str, float] = field(default_factory=dict)
    spent_j: float = 0.0
    probed_j: float = 0.0
    probing: str = ""  # the replica that was probed last
    blocklisted: dict[tuple[str, str], str] = field(default_factory=dict)
    losses: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    last_loss: dict[str, str] = field(default_factory=dict)  # by model
    idle_gap_s: dict[str, float] = field(default_factory=dict)  # by hardware
    diary: Diary = field(default_factory=Diary)
    out: list[Command] = field(default_factory=list)
    _timers: list[tuple[float, int, TimerKind, str]] = field(default_factory=list)
    _timer_count: int = 0
    _assignments: int = 0

    def remind(self, at_s: float, kind: TimerKind, name: str = "") -> None:
        """Come back to this at that time."""
        self._timer_count += 1
        heapq.heappush(self._timers, (at_s, self._timer_count, kind, name))

    def plan_by(self, at_s: float) -> None:
        """Make the next plan at that time at the latest."""
        if at_s < self.plan_at_s:
            self.plan_at_s = at_s
            self.remind(at_s, "plan")

    def due(self) -> tuple[TimerKind, str] | None:
        """The next timer whose time has come."""
        if not self._timers or self._timers[0][0] > self.now_s:
            return None
        _, _, kind, name = heapq.heappop(self._timers)
        return kind, name

    @property
    def next_timer_s(self) -> float | None:
        return self._timers[0][0] if self._timers else None

    def touch(self, *job_ids: str) -> None:
        """Look whether these jobs are over."""
        self.touched.update(dict.fromkeys(job_ids))

    def next_assignment_id(self) -> int:
        self._assignments += 1
        return self._assignments

    def note(self, kind: Kind, why: str, slot: Slot | None = None, **facts: object) -> None:
        """Write the decision down."""
        if slot is not None:
            facts |= {"replica_id": slot.replica_id, "hardware": slot.hardware}
        decision = Decision(kind, self.now_s, self.plan_number, why, **facts)  # type: ignore[arg-type]
        self.diary.note(decision)

    def offers(self, model: str) -> list[Offer]:
        """The hardware that can run the model now."""
        found = []
        for hardware, group in self.fleet.groups.items():
            profile = self.book.profile(hardware, model)
            nodes = group.total()
            if profile is not None and nodes and (hardware, model) not in self.blocklisted:
                found.append(Offer(profile, nodes, group.up_with(model)))
        return found

    def can_run(self, model: str) -> bool:
        """Whether there is any hardware that can run the model now."""
        return any(
            (hardware, model) not in self.blocklisted
            and self.book.profile(hardware, model) is not None
            and group.total()
            for hardware, group in self.fleet.groups.items()
        )

    def planned_point(self, hardware: str, model: str, objective: Objective) -> Performance | None:
        """How such work runs on this hardware by the plan; None if it does not.

        What nothing is left for gets what others leave idle.
        """
        grants = self.plan.grants.get((model, objective))
        if grants or (model, objective) in self.plan.hold_rate:
            grant = (grants or {}).get(hardware)
            return None if grant is None else grant.performance
        profile = self.book.profile(hardware, model)
        if profile is None or not self.plan.nodes(hardware, model):
            return None
        return frontier(profile, objective)[0]

    def drop_assignment(self, assignment: Assignment) -> None:
        """Forget an assignment; its open shards are the caller's business."""
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
        """The replica gets to the assignment now."""
        assignment.began_s = self.now_s
        self.remind(self.now_s + self.policy.late * assignment.predicted_s + 1.0, "late",
                    f"{assignment.job_id}/{assignment.assignment_id}")  # fmt: skip

    def revoke(self, assignment: Assignment) -> None:
        """Take the assignment back: what is not generated yet need not be."""
        if not assignment.revoked:
            assignment.revoked = True
            self.out.append(
                RevokeAssignment(assignment.assignment_id, assignment.replica_id, assignment.job_id)
            )

    def rest(self, slot: Slot) -> None:
        """The replica is idle: park it when idling has cost as much as loading again would, or at
        once where such pauses have been longer than that (ski rental with a forecast)."""
        at_s = self.now_s + self.patience_s(slot)
        if not self.now_s <= slot.look_s <= at_s:  # one timer is enough: it sets the next
            slot.look_s = at_s
            self.remind(at_s, "idle", slot.replica_id)

    def patience_s(self, slot: Slot) -> float:
        """How long the replica may idle before it is parked."""
        profile = self.book.profile(slot.hardware, slot.model)
        patience_s = self.policy.longest_idle_s
        if profile is not None and profile.standby.idle_w > 0:
            patience_s = min(patience_s, profile.standby.load_j / profile.standby.idle_w)
        return 0.0 if self.idle_gap_s.get(slot.hardware, 0.0) > 2 * patience_s else patience_s

    def learn_gap(self, slot: Slot) -> None:
        """The replica had nothing to do until now."""
        gap_s = self.now_s - slot.since_s
        if gap_s <= 0:
            return
        before_s = self.idle_gap_s.get(slot.hardware, gap_s)
        self.idle_gap_s[slot.hardware] = 0.8 * before_s + 0.2 * gap_s
