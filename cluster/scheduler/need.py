"""From jobs to demands: the rate that their deadlines ask for. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.scheduler.backlog import Job
from cluster.scheduler.policy import Policy
from cluster.scheduler.steps import Demand
from cluster.scheduler.terms import Objective

DEADLINE_RESERVE = 1.4  # of the objective that would rather be sure than cheap
Key = tuple[str, Objective]


@dataclass(frozen=True)
class Standby:
    """What there is to run a model: images/s of the replicas that are up, at their fastest, and
    the seconds that it takes to load it on others."""

    images_per_s: float
    load_s: float


def by_urgency(jobs: Iterable[Job], served: Mapping[str, float], *, fair: bool) -> list[Job]:
    """Jobs in the order in which they get capacity.

    Priority first; then deadlines, and between jobs without one the owner who was served least.
    fair: there is not enough for all, so owners come before deadlines.
    """

    def key(job: Job) -> tuple[float, ...]:
        terms = job.terms
        deadline_s = math.inf if terms.deadline_s is None else terms.deadline_s
        owed = served.get(terms.owner, 0.0)
        order = (owed, deadline_s) if fair else (deadline_s, owed)
        return (-terms.priority, *order, job.number)

    return sorted(jobs, key=key)


def demands(
    jobs: Iterable[Job],
    now_s: float,
    standby: Mapping[str, Standby],
    policy: Policy,
) -> list[Demand]:
    """What every model and objective needs, most pressing first: by priority, then
    deadline, then age: no model has to wait for ever for the hardware that another one holds.

    standby: by model; time for loading is set aside only for what replicas that are up cannot do.
    """
    groups: dict[Key, list[Job]] = defaultdict(list)
    for job in jobs:
        if not job.stopping:
            groups[job.terms.model, job.terms.objective].append(job)
    found: list[tuple[float, float, int, Demand]] = []
    for (model, objective), members in groups.items():
        due = sorted((j for j in members if j.terms.deadline_s is not None), key=_deadline_s)
        rate, in_time = _rate(due, now_s, policy.lease_s, policy)
        ready = standby.get(model)
        if ready is not None and rate > ready.images_per_s:
            loading_s = ready.load_s * (1 - ready.images_per_s / rate)
            rate, in_time = _rate(due, now_s, policy.lease_s + loading_s, policy)
        if objective == "deadline":
            rate *= DEADLINE_RESERVE
        elif objective == "throughput":
            rate = math.inf
        demand = Demand(
            model,
            objective,
            rate,
            sum(job.images_left for job in members),
            patient=in_time
            and objective in ("energy", "cost", "carbon")
            and len(due) == len(members),
            shards=sum(job.shards_left for job in members),
            relaxed=in_time,
        )
        first_s = _deadline_s(due[0]) if due else math.inf
        priority, oldest = max(j.terms.priority for j in members), min(j.number for j in members)
        found.append((-priority, first_s, oldest, demand))
    found.sort(key=lambda entry: entry[:3])
    return [demand for *_, demand in found]


def hold_until_s(
    jobs: Iterable[Job], key: Key, rate: float, margin_s: float, policy: Policy
) -> float:
    """When the demand of these jobs will have grown to that rate, if nothing is done."""
    prefix, until_s = 0, math.inf
    members = [j for j in jobs if (j.terms.model, j.terms.objective) == key and not j.stopping]
    for job in sorted(members, key=_deadline_s):
        prefix += job.images_left
        needed_s = (policy.reserve * prefix / rate + margin_s) / policy.slack_share
        until_s = min(until_s, _deadline_s(job) - needed_s)
    return until_s


def _rate(due: Sequence[Job], now_s: float, margin_s: float, policy: Policy) -> tuple[float, bool]:
    """Images/s by which every prefix of jobs in order of deadline is done in time, with reserve;
    and whether there is any time left to wait."""
    prefix, rate, in_time = 0, 0.0, True
    for job in due:
        prefix += job.images_left
        left_s = policy.slack_share * (_deadline_s(job) - now_s) - margin_s
        in_time = in_time and left_s > policy.lease_s
        rate = max(rate, prefix / max(left_s, policy.lease_s))
    return policy.reserve * rate, in_time


def _deadline_s(job: Job) -> float:
    return math.inf if job.terms.deadline_s is None else job.terms.deadline_s
