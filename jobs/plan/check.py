"""A plan replayed by the simulator: seeded days of jobs, faults and wrong beliefs.

The same scheduler as in production runs the plan's nodes. A day's jobs come as the demand says,
each with its deadline; energy is that of all of the day's jobs, those of the evening included,
plus what the nodes draw parked. The scheduler has seen seven such days before.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from statistics import fmean
from typing import Any

from cluster.optimise.capacity import GroupPlan, Plan
from cluster.scenario.arrivals import Arrival
from cluster.scenario.faults import DAY_S, Faults, believed
from cluster.scenario.fleet import FleetSpec
from cluster.scheduler.forecast import Forecast
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import Profile, ProfileBook
from cluster.scheduler.request import JobRequest, OperatingPoint, Performance, StandbyCost
from cluster.scheduler.state import SchedulerState
from cluster.simulation.simulator import simulate
from jobs.plan.answer import PlanAnswer, Simulated
from jobs.plan.request import HOURS, PlanRequest
from jobs.plan.translate import SLOT_S

JOBS_PER_DAY = 120  # of every demand: about one every twelve minutes
SHARDS_PER_JOB = 16
PAST_DAYS = 7
MARGIN = 0.10  # of energy
MISS_MARGIN = 0.01  # of jobs
PROFILE_ERROR = 0.05
#: Plans and assignments of two minutes, not of seconds: twenty times quicker, much the same energy.
POLICY = Policy(replan_s=120.0, assignment_s=120.0)


class PlannedFleet(FleetSpec):
    """A fleet whose profiles are given by model; a spec has one curve for all models."""

    planned: tuple[Profile, ...] = ()

    def profiles(self) -> Iterator[Profile]:
        yield from self.planned


def checked(
    request: PlanRequest, plan: Plan, answer: PlanAnswer, days: int, seed: int = 0
) -> PlanAnswer:
    """The answer with what the simulator says of it."""
    if not any(nodes.end for nodes in plan.groups):
        return answer
    found = [_day(request, plan, seed + day) for day in range(days)]
    energy_j = fmean(day[0] for day in found)
    miss_rate = sum(day[1] for day in found) / sum(day[2] for day in found)
    error = energy_j / plan.total.energy_j - 1.0
    simulated = Simulated(
        energy_j_per_day=energy_j,
        miss_rate=miss_rate,
        days=days,
        energy_error=error,
        margin=MARGIN,
        agrees=abs(error) <= MARGIN and miss_rate <= MISS_MARGIN,
    )
    return answer.model_copy(update={"simulated": simulated})


def _day(request: PlanRequest, plan: Plan, seed: int) -> tuple[float, int, int]:
    """Energy in J, jobs missed and jobs of a simulated day."""
    fleet = _fleet(plan, request)
    faults = _faults(request, plan)
    arrivals = list(_jobs(request, seed, 0))
    past = [job for ago in range(1, PAST_DAYS + 1) for job in _jobs(request, seed, -ago)]
    forecast = Forecast.of((arrival.at_s, arrival.job) for arrival in past)
    book = ProfileBook(believed(fleet.profiles(), PROFILE_ERROR, seed))
    longest_s = max(demand.deadline for demand in request.demand)
    result = simulate(
        fleet,
        arrivals,
        SchedulerState(book, POLICY, _cap_w(request, plan), forecast),
        faults=faults,
        seed=seed,
        horizon_s=DAY_S + longest_s,
    )
    parked_j = sum(nodes.end * nodes.group.parked_w for nodes in plan.groups) * DAY_S
    return result.energy_j + parked_j, result.missed, len(arrivals)


def _jobs(request: PlanRequest, seed: int, day: int) -> Iterator[Arrival]:
    """The jobs of a day in order of time: Poisson in number, spread as the demand is by hour."""
    jobs = []
    for number, demand in enumerate(request.demand):
        rng = random.Random(f"{seed} {day} {number} plan")
        images = demand.images_per_day.value
        images *= (1.0 + demand.growth_per_month) ** request.horizon_months
        each = max(1, round(images / JOBS_PER_DAY))
        hours = demand.by_hour or (1.0,) * HOURS
        for job in range(round(images / each)):
            at_s = SLOT_S * (rng.choices(range(HOURS), hours)[0] + rng.random()) + day * DAY_S
            request_of = JobRequest(
                f"demand-{number}-{job:04d}",
                demand.model,
                each,
                max(1, each // SHARDS_PER_JOB),
                deadline_s=at_s + demand.deadline,
            )
            jobs.append(Arrival(at_s, request_of))
    yield from sorted(jobs, key=lambda arrival: (arrival.at_s, arrival.job.job_id))


def _cap_w(request: PlanRequest, plan: Plan) -> float | None:
    """The fleet's cap above what its nodes draw parked, as the scheduler counts; not of sites."""
    if request.limits.power_w is None:
        return None
    parked_w = sum(nodes.end * nodes.group.parked_w for nodes in plan.groups)
    return request.limits.power_w - parked_w


def _faults(request: PlanRequest, plan: Plan) -> Faults:
    """Node losses per node and day, on average over the plan's nodes."""
    losses = {entry.name: entry.losses_per_day for entry in request.catalogue}
    nodes = sum(nodes.end for nodes in plan.groups)
    lost = sum(losses[nodes.group.name] * nodes.end for nodes in plan.groups)
    return Faults(node_losses=lost / nodes, profile_error=PROFILE_ERROR)


def _fleet(plan: Plan, request: PlanRequest) -> PlannedFleet:
    models = {demand.model for demand in request.demand}
    there = [replace(nodes, new=0, start=nodes.end, retire=0) for nodes in plan.groups if nodes.end]
    hardware = [_hardware(nodes) for nodes in there]
    profiles = [
        _profile(nodes, model)
        for nodes in there
        for model in sorted(models)
        if nodes.group.fastest(model)
    ]
    return PlannedFleet.model_validate(
        {"name": "planned", "hardware": hardware, "planned": profiles}
    )


def _name(nodes: GroupPlan) -> str:
    return "/".join(part for part in nodes.group.key if part)


def _hardware(nodes: GroupPlan) -> dict[str, Any]:
    group, source = nodes.group, {"text": "the plan's file", "year": 2000}
    least = min(group.points, key=lambda point: point.power_w)
    return {
        "name": _name(nodes),
        "count": nodes.end,
        "images_per_s": {point.model: point.images_per_s for point in group.points},
        "points": [{"batch_size": 1, "speed": 1, "power_w": least.power_w, "source": source}],
        "idle_w": group.idle_w,
        "parked_w": group.parked_w,
        "load_s": group.load_s,
        "load_w": group.load_w,
        "park_s": 0.0,
        "sources": dict.fromkeys(("images_per_s", "idle_w", "parked_w", "load_s"), source),
    }


def _profile(nodes: GroupPlan, model: str) -> Profile:
    """Power above that of the parked node, as the simulator counts it."""
    group = nodes.group
    points = [point for point in group.points if point.model == model]
    return Profile(
        _name(nodes),
        model,
        StandbyCost(
            idle_w=group.idle_w - group.parked_w,
            load_s=group.load_s,
            load_j=(group.load_w - group.parked_w) * group.load_s,
        ),
        tuple(
            Performance(
                OperatingPoint(batch_size=number + 1),
                point.images_per_s,
                point.power_w - group.parked_w,
            )
            for number, point in enumerate(points)
        ),
    )
