"""Our policy against the exact optimum, in cases that are small enough to be solved.

Random fleets of one to three kinds of hardware with up to three devices each, one to four jobs, six
slots of ten minutes; jobs come and are due at slots' bounds, so that the mixed-integer program
(whole devices, the whole future known) gives nothing away. Cases that no schedule has in time are
left out.

    python benchmarks/scheduler_exact.py [--seed 0] [--cases 200] [--json]
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from cluster.optimise.unit_commitment import lower_bound
from cluster.scenario.arrivals import Arrival
from cluster.scenario.fleet import FleetSpec
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.request import JobRequest
from cluster.scheduler.state import SchedulerState
from cluster.simulation.simulator import simulate

SLOT_S, SLOTS, MODEL = 600.0, 6, "m"
SOURCE = {"text": "made up", "year": 2026}


@dataclass(frozen=True)
class Case:
    """One case. energy_over_optimum: of ours; missed: jobs of ours that were late."""

    seed: int
    kinds: int
    devices: int
    jobs: int
    optimum_j: float
    energy_over_optimum: float
    missed: int


def cases(seed: int, count: int) -> Iterator[Case]:
    """So many cases that can be met."""
    number = 0
    while number < count:
        case = measure(seed)
        seed += 1
        if case is not None:
            number += 1
            yield case


def measure(seed: int) -> Case | None:
    """The case of this seed; None if no schedule is in time."""
    rng = random.Random(f"{seed} exact")
    fleet = _fleet(rng)
    arrivals = _arrivals(rng, fleet)
    optimum = lower_bound(fleet, arrivals, slot_s=SLOT_S, exact=True)
    if optimum.late_images > 0.5:
        return None
    result = simulate(
        fleet, arrivals, SchedulerState(ProfileBook(fleet.profiles())), horizon_s=SLOTS * SLOT_S
    )
    return Case(
        seed,
        len(fleet.hardware),
        sum(hardware.count for hardware in fleet.hardware),
        len(arrivals),
        optimum.energy_j,
        result.energy_j / optimum.energy_j,
        result.missed,
    )


def _fleet(rng: random.Random) -> FleetSpec:
    kinds = [_hardware(rng, f"kind-{i}") for i in range(rng.randint(1, 3))]
    return FleetSpec.model_validate({"name": "small", "hardware": kinds})


def _hardware(rng: random.Random, name: str) -> dict[str, Any]:
    """100 to 1,000 images/s at 50 to 500 W, and perhaps a slower point that is thriftier."""
    power_w = rng.uniform(50, 500)
    points = [{"batch_size": 64, "speed": 1.0, "power_w": power_w, "source": SOURCE}]
    if rng.random() < 0.5:
        slower = {"speed": 0.7, "power_w": power_w * rng.uniform(0.5, 0.65)}
        points.append({**points[0], **slower, "power_cap_w": slower["power_w"]})
    return {
        "name": name,
        "count": rng.randint(1, 3),
        "images_per_s": {MODEL: rng.uniform(100, 1000)},
        "points": points,
        "idle_w": power_w * rng.uniform(0.1, 0.4),
        "parked_w": 0.0,
        "load_s": rng.uniform(10, 60),
        "load_w": power_w * rng.uniform(0.2, 0.6),
        "park_s": 1.0,
        "sources": dict.fromkeys(("images_per_s", "idle_w", "parked_w", "load_s"), SOURCE),
    }


def _arrivals(rng: random.Random, fleet: FleetSpec) -> list[Arrival]:
    """One to four jobs, each up to half of what the fleet could do until it is due."""
    rate = fleet.capacity_images_per_s(MODEL)
    arrivals = []
    for number in range(rng.randint(1, 4)):
        first = rng.randint(0, SLOTS - 2)
        due = rng.randint(first + 1, SLOTS)
        images = int(rng.uniform(0.05, 0.5) * rate * (due - first) * SLOT_S)
        request = JobRequest(f"j{number}", MODEL, images, 200, deadline_s=due * SLOT_S)
        arrivals.append(Arrival(first * SLOT_S, request))
    return sorted(arrivals, key=lambda arrival: arrival.at_s)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    found = list(cases(1000 * options.seed, options.cases))
    if options.json:
        print(json.dumps([asdict(case) for case in found], indent=1))
        return
    ratios = [case.energy_over_optimum for case in found]
    tenths = statistics.quantiles(ratios, n=10)
    print(f"{len(found)} cases, energy over the optimum's:")
    print(f"  median {statistics.median(ratios):.3f}, nine in ten below {tenths[8]:.3f}")
    worst = sorted(found, key=lambda case: -case.energy_over_optimum)[:5]
    print("  worst " + ", ".join(f"{c.energy_over_optimum:.3f} (seed {c.seed})" for c in worst))
    late = [case for case in found if case.missed]
    print(f"  {len(late)} cases with a job that was late: {[case.seed for case in late][:10]}")


if __name__ == "__main__":
    main()
