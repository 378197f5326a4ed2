"""Our scheduler and others against the least energy possible, on simulated days.

Sweeps load x slack, and at a slack of an hour load x profile error x failure rate (with --factorial
all of them with each other), on the bundled 21-node fleet. Every policy gets the same jobs, beliefs
and failures; the bound knows the truth, sees the whole day in advance, and nothing fails for it.
Parameters are tuned on the days of --train, figures are of other days.

    python benchmarks/scheduler.py --seed 0 [--days 1] [--quick | --factorial] [--train]
                                   [--json] [--policies merit,warm-pull]

failure_rate: failures per device and day, a third each of nodes lost for half an hour, of replicas
that crash, and of replicas that fall silent. energy_over_lb: a ratio of sums over the days.
miss_rate: of jobs; lb_late: images that no schedule has in time. gap: energy above the bound in
parts, each as a share of the bound.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

from cluster.scenario.faults import Faults
from cluster.scenario.fleet import load_fleet
from cluster.scenario.workload import load_workload
from cluster.simulation.compare import GAP_PARTS, SCHEDULERS, Day, gap_j, make_day

HELD_OUT = 10_000


class Cell(NamedTuple):
    """One point of the sweep."""

    load: float
    slack_s: float
    profile_error: float
    failure_rate: float


LOADS, SLACKS_S, ERRORS, FAILURES = (
    (0.02, 0.18, 0.53, 0.75, 0.9),
    (900.0, 3600.0, 21600.0),
    (0.0, 0.3),
    (0.0, 1.0),
)
GRID = [Cell(load, slack_s, 0.0, 0.0) for load, slack_s in product(LOADS, SLACKS_S)]
TROUBLES = [(0.3, 0.0), (0.0, 1.0), (0.3, 1.0)]
FULL = [*GRID, *(Cell(load, 3600.0, *t) for load, t in product((0.18, 0.53, 0.75), TROUBLES))]
FACTORIAL = [Cell(*values) for values in product(LOADS, SLACKS_S, ERRORS, FAILURES)]
QUICK = [
    Cell(0.02, 3600, 0.0, 0.0),
    Cell(0.18, 3600, 0.0, 0.0),
    Cell(0.53, 3600, 0.0, 0.0),
    Cell(0.53, 900, 0.0, 0.0),
    Cell(0.53, 3600, 0.3, 0.0),
    Cell(0.53, 3600, 0.0, 1.0),
    Cell(0.9, 21600, 0.0, 0.0),
]


def days_of(cell: Cell, seeds: Sequence[int]) -> list[Day]:
    """The days of a cell, with their bounds."""
    each = cell.failure_rate / 3
    faults = Faults(node_losses=each, crashes=each, silences=each, profile_error=cell.profile_error)
    update = {"load": cell.load, "slack_s": cell.slack_s, "faults": faults}
    workload = load_workload("day").model_copy(update=update)
    return [make_day(load_fleet("reference"), workload, seed) for seed in seeds]


def measure(cell: Cell, policy: str, days: Sequence[Day]) -> dict[str, Any]:
    """One row: a policy on the days of a cell."""
    began_s = time.perf_counter()
    results = [day.run(SCHEDULERS[policy]) for day in days]
    bound_j = sum(day.bound.energy_j for day in days)
    gaps = [gap_j(result, day.bound) for result, day in zip(results, days, strict=True)]
    jobs = sum(len(result.jobs) for result in results)
    return {
        "policy": policy,
        **cell._asdict(),
        "energy_over_lb": sum(result.energy_j for result in results) / bound_j,
        "miss_rate": sum(result.missed for result in results) / jobs,
        "lb_late": sum(d.bound.late_images for d in days) / sum(d.bound.images for d in days),
        "gap": {part: sum(gap[part] for gap in gaps) / bound_j for part in GAP_PARTS},
        "lb_j": bound_j,
        "days": len(days),
        "events": sum(result.events for result in results),
        "seconds": time.perf_counter() - began_s,
    }


def sweep(cells: Sequence[Cell], policies: Sequence[str], seeds: Sequence[int]) -> Iterator[Any]:
    for cell in cells:
        days = days_of(cell, seeds)
        for policy in policies:
            yield measure(cell, policy, days)


def show(row: dict[str, Any], last: dict[str, Any] | None) -> None:
    """A line of the table; a heading where a new cell begins."""
    if last is None or any(row[name] != last[name] for name in Cell._fields):
        late = f"; {row['lb_late']:.1%} late in any schedule" if row["lb_late"] > 5e-5 else ""
        print(
            f"\nload {row['load']:.0%}, slack {row['slack_s'] / 60:g} min, profile error "
            f"{row['profile_error']:.0%}, {row['failure_rate']:g} failures a day; "
            f"bound {row['lb_j'] / row['days'] / 1e6:.1f} MJ{late}"
        )
        parts = "".join(f"{part:>12}" for part in GAP_PARTS)
        print(f"{'policy':22}{'energy/LB':>10}{'missed':>9}{parts}{'s':>7}")
    parts = "".join(f"{row['gap'][part]:12.3f}" for part in GAP_PARTS)
    print(
        f"{row['policy']:22}{row['energy_over_lb']:10.3f}{row['miss_rate']:9.2%}{parts}"
        f"{row['seconds']:7.1f}",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--days", type=int, default=1, help="per cell")
    parser.add_argument("--quick", action="store_true", help="few cells, about a minute")
    parser.add_argument("--factorial", action="store_true", help="every cell: an hour")
    parser.add_argument("--train", action="store_true", help="days that parameters are tuned on")
    parser.add_argument("--policies", default=",".join(SCHEDULERS))
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    policies = options.policies.split(",")
    unknown = [policy for policy in policies if policy not in SCHEDULERS]
    if unknown:
        sys.exit(f"no policy {', '.join(unknown)}; there are {', '.join(SCHEDULERS)}")
    first = 100 * options.seed + (0 if options.train else HELD_OUT)
    cells = QUICK if options.quick else FACTORIAL if options.factorial else FULL
    rows: list[dict[str, Any]] = []
    for row in sweep(cells, policies, range(first, first + options.days)):
        if not options.json:
            show(row, rows[-1] if rows else None)
        rows.append(row)
    if options.json:
        print(json.dumps(rows, indent=1))
    else:
        print(f"\nload average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
