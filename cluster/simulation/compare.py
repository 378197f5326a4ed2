"""Compare a scheduler's day with the least energy possible, and break the difference down."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cluster.errors import UserError
from cluster.optimise.unit_commitment import Bound, lower_bound
from cluster.scenario.arrivals import Arrival
from cluster.scenario.faults import believed
from cluster.scenario.fleet import FleetSpec
from cluster.scenario.workload import WorkloadSpec
from cluster.scheduler.forecast import Forecast
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.state import SchedulerState
from cluster.simulation.baselines import BASELINES
from cluster.simulation.baselines.base import Baseline
from cluster.simulation.books import Scheduler, SimulationResult
from cluster.simulation.simulator import simulate
from un0.suggest import choose

GAP_PARTS = ("job", "idle", "overhead", "retry", "exploration")
Maker = Callable[[ProfileBook, tuple[str, ...], Forecast], Scheduler]


def _plain(kind: type[Baseline]) -> Maker:
    return lambda book, models, _: kind(book, models)


SCHEDULERS: dict[str, Maker] = {
    "merit": lambda book, _, forecast: SchedulerState(book, forecast=forecast),
    "merit-cold": lambda book, *_: SchedulerState(book),  # has seen no other day
    **{name: _plain(kind) for name, kind in BASELINES.items()},
}


@dataclass(frozen=True)
class Day:
    """The jobs of one seed on a fleet, and the bound for them. past: jobs of the days before, by
    which a scheduler may know what is usual."""

    fleet: FleetSpec
    workload: WorkloadSpec
    seed: int
    arrivals: Sequence[Arrival]
    bound: Bound
    past: Sequence[Arrival] = ()

    def run(self, maker: Maker) -> SimulationResult:
        """Simulate the day with a scheduler whose profiles are as wrong as the workload says."""
        faults = self.workload.faults
        profiles = believed(self.fleet.profiles(), faults.profile_error, self.seed)
        forecast = Forecast.of((arrival.at_s, arrival.job) for arrival in self.past)
        scheduler = maker(ProfileBook(profiles), tuple(self.workload.models), forecast)
        horizon_s = self.workload.horizon_s(self.arrivals)
        return simulate(
            self.fleet,
            self.arrivals,
            scheduler,
            faults=faults,
            seed=self.seed,
            horizon_s=horizon_s,
        )


def make_day(fleet: FleetSpec, workload: WorkloadSpec, seed: int) -> Day:
    """The day of this seed. Slots are short next to deadlines, to keep the bound tight."""
    arrivals = workload.jobs(fleet, seed)
    slack_s = workload.slack_s or 3600.0
    bound = lower_bound(fleet, arrivals, slot_s=min(300.0, slack_s / 6))
    return Day(fleet, workload, seed, arrivals, bound, workload.past(fleet, seed))


def scheduler_named(name: str) -> Maker:
    """The project's scheduler (merit) or a baseline. Raises UserError for an unknown name."""
    if name not in SCHEDULERS:
        raise UserError(f"policy {name!r} is not known; {choose(name, SCHEDULERS)}")
    return SCHEDULERS[name]


def gap_j(result: SimulationResult, bound: Bound) -> dict[str, float]:
    """Energy above the bound, J, in parts that add up to it.

    dispatch: images made in more expensive ways than in the bound; idle, load: more energy for
    staying warm and for loading; retry: lost attempts; exploration: energy of probes above the
    bound's joules per image.
    """
    each_j = bound.job_j / bound.images
    probes_j = each_j * result.probed_images
    return {
        "job": result.bucket_j("job") + probes_j - bound.job_j,
        "idle": result.bucket_j("idle") - bound.idle_j,
        "overhead": result.bucket_j("overhead") - bound.overhead_j,
        "retry": result.bucket_j("wasted"),
        "exploration": result.bucket_j("exploration") - probes_j,
    }
