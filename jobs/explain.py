"""Explain where a job or shard ran and why, from the decisions in its store. Pure."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from cluster.energy import ZERO_ENERGY, in_joules, sum_energy
from cluster.scheduler.explain import Kind, demand_name
from cluster.storage.decisions import DecisionRecord, RivalRecord
from cluster.types import CommitRecord, Energy, JobRecord, model_key
from jobs.explanation import (
    AssignmentFacts,
    Event,
    HardwareFacts,
    JobExplanation,
    LastPlan,
    Measured,
    MeasuredShard,
    Predicted,
    SetAsideFacts,
    ShardExplanation,
)

COST_UNITS = {
    "energy": "J",
    "deadline": "J",
    "throughput": "s",
    "cost": "of the price's currency",
    "carbon": "gCO2e",
}
_RUNS = ("lease", "probe", "speculate")  # the kinds that hand shards to a replica
_Leased = Mapping[int, set[str]]  # the hardware that each shard was assigned to


class Commits(Protocol):
    """A list of them, or what reads them as they are asked for."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[CommitRecord]: ...


def explain_job(
    record: JobRecord, decisions: Sequence[DecisionRecord], commits: Commits
) -> JobExplanation:
    """The job's predictions, the decisions with their reasons, and what was measured."""
    plans = [d for d in decisions if d.kind == "plan" and d.demand == _demand(record)]
    return JobExplanation(
        **_job(record, commits),
        decisions=dict(Counter(d.kind for d in decisions)),
        runs=len({d.run_id for d in decisions}),
        plans=len(plans),
        last_plan=_plan(plans[-1]) if plans else None,
        events=tuple(_events(d for d in decisions if d.kind not in ("plan", "lease"))),
        hardware=tuple(_hardware(record, decisions, commits)),
    )


def explain_shard(
    record: JobRecord,
    decisions: Sequence[DecisionRecord],
    commit: CommitRecord | None,
    shard: int,
) -> ShardExplanation:
    """Every assignment of one shard, the plan it followed, and what was measured."""
    part = record.workload.shard(shard)
    about = [d for d in decisions if d.first is not None and d.first <= shard < (d.stop or 0)]
    plans = {
        (d.run_id, d.plan): d for d in decisions if d.kind == "plan" and d.demand == _demand(record)
    }
    return ShardExplanation(
        **_job(record, [] if commit is None else [commit]),
        shard=shard,
        start=part.start,
        stop=part.stop,
        leases=tuple(_assignment(record, d, plans) for d in about if d.kind in _RUNS),
        set_aside=tuple(SetAsideFacts(at=d.at, why=d.why) for d in about if d.kind == "set_aside"),
        measured=None
        if commit is None
        else MeasuredShard(**_measured(commit).model_dump(), **_where(commit)),
    )


def _job(record: JobRecord, commits: Commits) -> dict[str, Any]:
    spec, workload = record.spec, record.workload
    objective = spec.objective
    return {
        "job_id": workload.job_id,
        "model": workload.model,
        "model_key": model_key(workload.model_rev, workload.precision),
        "objective": objective,
        "cost_unit": COST_UNITS.get(objective, "J"),
        "priority": spec.priority,
        "deadline_s": spec.deadline,
        "energy_budget_j": spec.energy_budget,
        "images": workload.count,
        "shards": workload.num_shards,
        "committed_shards": len(commits),
    }


def _demand(record: JobRecord) -> str:
    """The name of the demand that the job is part of."""
    workload = record.workload
    key = model_key(workload.model_rev, workload.precision)
    return demand_name(key, record.spec.objective, workload.encoding_key)


def _plan(plan: DecisionRecord) -> LastPlan:
    return LastPlan(at=plan.at, why=plan.why, rivals=_rivals(plan))


def _rivals(plan: DecisionRecord | None) -> tuple[RivalRecord, ...]:
    return () if plan is None else plan.rivals


def _events(decisions: Iterable[DecisionRecord]) -> list[Event]:
    """Decisions grouped by kind, hardware and reason, in order of each group's first. Reasons that
    differ only in figures are the same."""
    groups: dict[tuple[Kind, str | None, str], list[DecisionRecord]] = defaultdict(list)
    for d in decisions:
        groups[d.kind, d.hardware, re.sub(r"\d+", "#", d.why)].append(d)
    return [
        Event(
            kind=kind,
            hardware=hardware,
            why=group[-1].why,
            times=len(group),
            first_at=group[0].at,
            last_at=group[-1].at,
            replicas=tuple(sorted({d.replica_id for d in group if d.replica_id})),
            shards=tuple((d.first, d.stop) for d in group if d.first is not None),
        )
        for (kind, hardware, _), group in groups.items()
    ]


def _hardware(
    record: JobRecord, decisions: Sequence[DecisionRecord], commits: Commits
) -> list[HardwareFacts]:
    """By hardware: the predicted cost of its assignments, and the measured cost of its commits."""
    assignments: dict[str, list[DecisionRecord]] = defaultdict(list)
    assigned: dict[int, set[str]] = defaultdict(set)
    for d in decisions:
        if d.kind in _RUNS and d.hardware is not None and d.first is not None and d.stop:
            assignments[d.hardware].append(d)
            for shard in range(d.first, d.stop):
                assigned[shard].add(d.hardware)
    ran: dict[str, _Tally] = defaultdict(_Tally)
    for commit in commits:
        ran[_ran_on(commit, assigned)].add(commit)
    return [
        HardwareFacts(
            hardware=hardware,
            leases=len(assignments[hardware]),
            predicted=_predicted(record, assignments[hardware]) if assignments[hardware] else None,
            measured=ran[hardware].measured() if hardware in ran else None,
        )
        for hardware in sorted({*assignments, *ran})
    ]


def _ran_on(commit: CommitRecord, assigned: _Leased) -> str:
    """The hardware as decisions call it, if they are unambiguous."""
    names = assigned.get(commit.shard, set())
    return next(iter(names)) if len(names) == 1 else commit.hardware


def _assignment(
    record: JobRecord, d: DecisionRecord, plans: Mapping[tuple[str, int], DecisionRecord]
) -> AssignmentFacts:
    assert d.first is not None  # such a decision is about shards
    assert d.stop is not None
    return AssignmentFacts(
        at=d.at,
        kind=d.kind,
        why=d.why,
        replica_id=d.replica_id,
        hardware=d.hardware,
        first=d.first,
        stop=d.stop,
        predicted=_predicted(record, [d]),
        run_id=d.run_id,
        plan=d.plan,
        rivals=_rivals(plans.get((d.run_id, d.plan))),
    )


def _predicted(record: JobRecord, assignments: Sequence[DecisionRecord]) -> Predicted:
    """The predicted time and energy of these assignments together."""
    shard = record.workload.shard
    images = sum(
        shard(d.stop - 1).stop - shard(d.first).start
        for d in assignments
        if d.first is not None and d.stop
    )
    joules = [d.predicted_j for d in assignments]
    seconds = [d.predicted_s for d in assignments]
    energy_j = _total(joules)
    return Predicted(
        images=images,
        seconds=_total(seconds),
        energy_j=energy_j,
        energy_per_image_j=None if energy_j is None or not images else energy_j / images,
    )


def _total(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


@dataclass
class _Tally:
    """Sums over commits, of which a large job has too many to be kept."""

    images: int = 0
    seconds: float = 0.0
    energy: Energy = ZERO_ENERGY

    def add(self, commit: CommitRecord) -> None:
        self.images += commit.rows
        self.seconds += commit.generate_s
        self.energy = sum_energy([self.energy, commit.energy])

    def measured(self) -> Measured:
        """The measured time and energy of these shards, from their commit records."""
        energy = self.energy
        return Measured(
            images=self.images,
            seconds=self.seconds,
            energy_j=in_joules(energy.energy_mj),
            low_j=in_joules(energy.low_mj),
            high_j=in_joules(energy.high_mj),
            quality=energy.quality,
            method=energy.method,
            energy_per_image_j=in_joules(energy.energy_mj, self.images),
        )


def _measured(commit: CommitRecord) -> Measured:
    tally = _Tally()
    tally.add(commit)
    return tally.measured()


def _where(commit: CommitRecord) -> dict[str, Any]:
    return {
        "hardware": commit.hardware,
        "host_name": commit.host_name,
        "attempt_id": commit.attempt_id,
        "committed_at": commit.committed_at,
    }
