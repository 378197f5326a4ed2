"""From jobs to demands: the rates that their deadlines require. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cluster.scheduler.backlog import Job
from cluster.scheduler.forecast import Expected, Forecast
from cluster.scheduler.policy import Policy
from cluster.scheduler.request import DemandKey
from cluster.scheduler.supply import Demand

DEADLINE_RESERVE = 1.4  # rate over the required one, for the objective ``deadline``


@dataclass(frozen=True)
class Standby:
    """Capacity for a model. images_per_s: of the replicas that are up, at their fastest points.
    load_s: time to load the model on another replica, of the slowest hardware."""

    images_per_s: float
    load_s: float


def by_urgency(
    jobs: Iterable[Job], served: Mapping[str, float], now_s: float, policy: Policy, *, fair: bool
) -> list[Job]:
    """Jobs in the order in which they get capacity.

    Priority first; then deadlines, and between jobs without one the owner who was served least.
    fair: there is not enough for all, so owners come before deadlines.
    """

    def key(job: Job) -> tuple[float, ...]:
        turn_s = _turn_s(job, now_s, policy)
        owed = served.get(job.request.owner, 0.0)
        order = (owed, turn_s) if fair else (turn_s, owed)
        return (-job.request.priority, *order, job.number)

    return sorted(jobs, key=key)


def _turn_s(job: Job, now_s: float, policy: Policy) -> float:
    """By when it is its turn: the deadline; or, of a job without one, when it has waited so long
    that those with one may go before it no more."""
    if job.request.deadline_s is not None:
        return job.request.deadline_s
    turn_s = job.came_s + policy.turn_s
    return turn_s if turn_s <= now_s else math.inf


def demands(
    jobs: Iterable[Job],
    now_s: float,
    standby: Mapping[DemandKey, Standby],
    policy: Policy,
    forecast: Forecast,
) -> list[Demand]:
    """The demand of every model, objective and encoding, most urgent first: by priority, deadline,
    then age. So no model waits forever for hardware that another one holds.

    standby: by demand. Time to load it is planned for only if the replicas that are up are too
    slow. forecast: of expected work.
    """
    groups: dict[DemandKey, list[Job]] = defaultdict(list)
    for job in jobs:
        if not job.stopping:
            groups[job.request.demand].append(job)
    found: list[tuple[float, float, int, Demand]] = []
    for key, members in groups.items():
        due = sorted((j for j in members if j.request.deadline_s is not None), key=_deadline_s)
        ahead = forecast.ahead(key, now_s) if due else []
        pace = _pace(due, ahead, now_s, policy.assignment_s, policy)
        ready = standby.get(key)
        if ready is not None and pace.rate > ready.images_per_s:
            loading_s = ready.load_s * (1 - ready.images_per_s / pace.rate)
            pace = _pace(due, ahead, now_s, policy.assignment_s + loading_s, policy)
        rate = pace.rate
        if key.objective == "deadline":
            rate *= DEADLINE_RESERVE
        elif key.objective == "throughput":
            rate = math.inf
        demand = Demand(
            key.model,
            key.objective,
            rate,
            sum(job.images_left for job in members),
            patient=pace.in_time
            and key.objective in ("energy", "cost", "carbon")
            and len(due) == len(members),
            shards=sum(job.shards_left for job in members),
            relaxed=pace.in_time,
            steady=pace.steady,
            busy=pace.steady * (1 + (ahead[0].unsure if ahead else 0.0)),
            encoding=key.encoding,
        )
        first_s = min(_turn_s(job, now_s, policy) for job in members)
        priority, oldest = max(j.request.priority for j in members), min(j.number for j in members)
        found.append((-priority, first_s, oldest, demand))
    found.sort(key=lambda entry: entry[:3])
    return [demand for *_, demand in found]


def hold_until_s(
    jobs: Iterable[Job], key: DemandKey, rate: float, margin_s: float, policy: Policy
) -> float:
    """When the rate required by these jobs' deadlines will reach ``rate`` if none of them runs."""
    prefix, until_s = 0, math.inf
    members = [j for j in jobs if j.request.demand == key and not j.stopping]
    for job in sorted(members, key=_deadline_s):
        prefix += job.images_left
        needed_s = (policy.reserve * prefix / rate + margin_s) / policy.slack_share
        until_s = min(until_s, _deadline_s(job) - needed_s)
    return until_s


class _Pace(NamedTuple):
    """rate: images/s by which all that is there is done in time, with reserve. steady: with what is
    expected too, as steadily as can be; at least the rate. in_time: there is time to wait."""

    rate: float
    steady: float
    in_time: bool


def _pace(
    due: Sequence[Job],
    ahead: Sequence[Expected],
    now_s: float,
    margin_s: float,
    policy: Policy,
) -> _Pace:
    """What the deadlines of these jobs, in order, ask for; of all the time, margin_s is lost."""
    goals, in_time = [], True
    for job in due:
        left_s = policy.slack_share * (_deadline_s(job) - now_s) - margin_s
        in_time = in_time and left_s > policy.assignment_s
        goals.append((max(left_s, policy.assignment_s), float(job.images_left)))
    rate = policy.reserve * steady_rate(0.0, [], goals)
    if not ahead:
        return _Pace(rate, rate, in_time)
    there = sum(images for _, images in goals)
    to_come = [(more.stop_s - now_s, more.images) for more in ahead]
    for more in ahead:
        due_s = max(more.due_s - margin_s, more.stop_s)
        goals.append((due_s - now_s, more.images))
    return _Pace(rate, max(rate, steady_rate(there, to_come, goals)), in_time)


def steady_rate(
    there: float, to_come: Sequence[tuple[float, float]], goals: Sequence[tuple[float, float]]
) -> float:
    """The rate to work at now, in images/s, of the schedule whose rate changes least.

    there: images that wait now. to_come: (seconds from now, images) that arrive by then, evenly
    since the entry before. goals: (seconds from now, images) that are due then, whether they wait
    now or arrive later. The images done over time have to stay between two curves: those that have
    arrived and those that are due. If working faster is more expensive per image, the cheapest
    schedule is the shortest path between the curves; the result is its first slope (for one
    machine: Yao, Demers, Shenker, "A scheduling model for reduced CPU energy", FOCS 1995).
    """
    turns = sorted([(at_s, 0, n) for at_s, n in to_come] + [(at_s, 1, n) for at_s, n in goals])
    least, most, must, may = 0.0, math.inf, 0.0, there
    for at_s, is_due, images in turns:
        if not is_due:
            may += images
            if may / at_s < least:
                break  # it runs along what is due until there
            most = min(most, may / at_s)
        else:
            must += images
            if must / at_s > most:
                return most  # all that comes is worked off at once until there
            least = max(least, must / at_s)
    return least


def _deadline_s(job: Job) -> float:
    return math.inf if job.request.deadline_s is None else job.request.deadline_s
