"""Baseline schedulers, to compare the project's own with."""

from __future__ import annotations

from cluster.simulation.baselines.base import Baseline
from cluster.simulation.baselines.blind import LeastLoadedByCount, Random, RoundRobin
from cluster.simulation.baselines.informed import (
    EnergyAndLateness,
    FastestFirst,
    LeastLoadedByWork,
    LowestJoules,
    PullAndPark,
    WarmPull,
)

BASELINES: dict[str, type[Baseline]] = {
    "random": Random,
    "round-robin": RoundRobin,
    "least-loaded-count": LeastLoadedByCount,
    "least-loaded-work": LeastLoadedByWork,
    "fastest-first": FastestFirst,
    "warm-pull": WarmPull,
    "pull-park": PullAndPark,
    "lowest-joules": LowestJoules,
    "energy-lateness": EnergyAndLateness,
}
