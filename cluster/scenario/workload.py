"""Workloads: which jobs arrive when. Sizes follow from the share of the fleet to keep busy."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, NonNegativeInt, PositiveFloat

from cluster.documents import read_bundled
from cluster.errors import UserError
from cluster.scenario.arrivals import Arrival
from cluster.scenario.faults import DAY_S, Faults
from cluster.scenario.fleet import FleetSpec
from cluster.scenario.traces import Request, TraceSpec, in_windows, read_trace
from cluster.scheduler.request import JobRequest
from cluster.types import Record
from un0.quantities import parse_count

Count = Annotated[int, BeforeValidator(parse_count), Field(ge=1)]
PAST_SEEDS = 1_000_003  # away from the seeds of days that are simulated
BUNDLED = Path(__file__).parent / "workloads"


class SyntheticSpec(Record):
    """Synthetic arrivals. swing: of the rate over the day, 0 is flat. Part of the jobs,
    ``burst_share``, comes in bursts of about ``burst_jobs`` within minutes. size_spread: sigma of
    the logarithm of job sizes.
    """

    kind: Literal["synthetic"] = "synthetic"
    jobs: Count = 1000
    span_s: PositiveFloat = DAY_S
    swing: float = Field(default=0.3, ge=0, le=1)
    peak_hour: float = Field(default=15.0, ge=0, lt=24)
    burst_share: float = Field(default=0.1, ge=0, le=1)
    burst_jobs: PositiveFloat = 5.0
    burst_s: PositiveFloat = 300.0
    size_spread: float = Field(default=0.8, ge=0, le=3)

    def requests(self, seed: int) -> list[Request]:
        """The requests of this seed's day."""
        rng = random.Random(f"{seed} arrivals")
        bursts = max(1, round(self.jobs * self.burst_share / self.burst_jobs))
        centres = [self._time(rng) for _ in range(bursts)]
        requests = []
        for _ in range(self.jobs):
            if rng.random() < self.burst_share:
                at_s = rng.choice(centres) + rng.expovariate(1 / self.burst_s)
            else:
                at_s = self._time(rng)
            work = rng.lognormvariate(0.0, self.size_spread)
            requests.append(Request(min(at_s, self.span_s), work))
        return sorted(requests, key=lambda request: request.at_s)

    def _time(self, rng: random.Random) -> float:
        """A random time of the day, distributed as the rate (rejection sampling)."""
        while True:
            at_s = rng.uniform(0.0, self.span_s)
            wave = math.cos(2 * math.pi * (at_s / DAY_S - self.peak_hour / 24))
            if rng.random() * (1 + self.swing) < 1 + self.swing * wave:
                return at_s


class WorkloadSpec(Record):
    """load: work as a share of what the whole fleet could do from the first to the last arrival.

    slack_s: from arrival to deadline; null: no deadline. models: share of the work by model.
    faults: of the fleet. past_days: number of similar earlier days that the scheduler's forecast
    learns from; none for recorded traces.
    """

    name: str = Field(min_length=1)
    models: dict[str, PositiveFloat] = Field(min_length=1)
    load: float = Field(gt=0, le=10)
    slack_s: PositiveFloat | None
    arrivals: Annotated[SyntheticSpec | TraceSpec, Field(discriminator="kind")]
    shard_images: Count = 16_384
    faults: Faults = Faults()
    past_days: NonNegativeInt = 7

    def past(self, fleet: FleetSpec, seed: int) -> list[Arrival]:
        """The jobs of earlier days, at negative times on the clock of this day."""
        if not isinstance(self.arrivals, SyntheticSpec):
            return []
        jobs = []
        for day in range(1, self.past_days + 1):
            ago_s = day * max(DAY_S, self.arrivals.span_s)
            for arrival in self.jobs(fleet, seed * PAST_SEEDS + PAST_SEEDS - day):
                due_s = arrival.job.deadline_s
                job = replace(arrival.job, deadline_s=None if due_s is None else due_s - ago_s)
                jobs.append(Arrival(arrival.at_s - ago_s, job))
        return jobs

    def jobs(self, fleet: FleetSpec, seed: int = 0) -> list[Arrival]:
        """The jobs of this seed on this fleet. Raises UserError if it cannot run a model."""
        capacity = {model: fleet.capacity_images_per_s(model) for model in self.models}
        cannot = [model for model, rate in capacity.items() if rate == 0]
        if cannot:
            raise UserError(
                f"fleet {fleet.name} cannot run {', '.join(cannot)}; it knows "
                f"{', '.join(fleet.models)}"
            )
        requests = self._requests(seed)
        span_s = self._span_s(requests[-1].at_s)
        names, rng = list(self.models), random.Random(f"{seed} models")
        drawn = rng.choices(names, list(self.models.values()), k=len(requests))
        spoken = {model: names[i % len(names)] for i, model in enumerate(_by_work(requests))}
        models = [spoken[r.model] if r.model else d for r, d in zip(requests, drawn, strict=True)]
        scale = self._scales(requests, models, span_s)
        return [
            self._arrival(i, request, model, request.work * scale[model] * capacity[model])
            for i, (request, model) in enumerate(zip(requests, models, strict=True))
        ]

    def horizon_s(self, arrivals: Sequence[Arrival]) -> float:
        """Until when energy is counted: the last deadline, or where there is none, a day more."""
        return self._span_s(arrivals[-1].at_s) + (DAY_S if self.slack_s is None else self.slack_s)

    def _span_s(self, last_s: float) -> float:
        """The time in which jobs arrive, s."""
        if isinstance(self.arrivals, SyntheticSpec):
            return self.arrivals.span_s
        return max(last_s, 1.0)

    def _requests(self, seed: int) -> list[Request]:
        if isinstance(self.arrivals, SyntheticSpec):
            return self.arrivals.requests(seed)
        return in_windows(read_trace(self.arrivals), self.arrivals.window_s)

    def _scales(
        self, requests: list[Request], models: list[str], span_s: float
    ) -> dict[str, float]:
        """Seconds of the whole fleet per unit of work, so that the load and its mix come out."""
        there = {model: share for model, share in self.models.items() if model in models}
        sums = dict.fromkeys(there, 0.0)
        for request, model in zip(requests, models, strict=True):
            sums[model] += request.work
        whole = sum(there.values())
        return {m: self.load * span_s * share / whole / sums[m] for m, share in there.items()}

    def _arrival(self, number: int, request: Request, model: str, images: float) -> Arrival:
        deadline_s = None if self.slack_s is None else request.at_s + self.slack_s
        job = JobRequest(
            f"job-{number:05d}",
            model,
            max(1, round(images)),
            self.shard_images,
            deadline_s=deadline_s,
        )
        return Arrival(request.at_s, job)


def _by_work(requests: list[Request]) -> list[str]:
    """The trace's own models, those with most work first."""
    sums: dict[str, float] = {}
    for request in requests:
        sums[request.model] = sums.get(request.model, 0.0) + request.work
    return sorted(sums, key=lambda model: -sums[model])


def load_workload(name: str | Path) -> WorkloadSpec:
    """A bundled workload by its name, or the workload in a YAML file. Raises UserError."""
    return read_bundled(WorkloadSpec, name, BUNDLED, "workload", "load: 0.3")
