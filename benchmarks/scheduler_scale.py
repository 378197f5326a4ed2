"""What a decision of the scheduler costs on large fleets: time per event, and memory.

A simulated day of 1,000 jobs whose work grows with the fleet: at 10,000 nodes a billion images of a
model that makes 20 images/s on an H100. Each line is a process of its own; only the scheduler's own
calls are timed, the simulator around them is not. "10 x shards" is the same work in shards a tenth
as large. Times are CPU times.

    python benchmarks/scheduler_scale.py [--nodes 100,1000,10000] [--policy merit] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

from cluster.scenario.fleet import FleetSpec, load_fleet
from cluster.scenario.workload import SyntheticSpec, WorkloadSpec
from cluster.scheduler.commands import Command
from cluster.scheduler.events import Event
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import ProfileBook
from cluster.scheduler.state import SchedulerState
from cluster.simulation.baselines import BASELINES
from cluster.simulation.books import Scheduler
from cluster.simulation.simulator import simulate

MODEL, GFLOP = "heavy", 19_895.0
IMAGES_PER_NODE = 100_000
JOBS, SLACK_S, ASSIGNMENT_S = 1000, 21_600.0, 300.0


@dataclass(frozen=True)
class Cost:
    """What one day took. decisions: commands. us_per_event: of the scheduler alone."""

    policy: str
    nodes: int
    images: int
    shards: int
    events: int
    decisions: int
    decisions_per_s: float
    us_per_event: float
    us_worst: float
    peak_mb: float
    missed: int
    wall_s: float


class Timed:
    """A scheduler whose calls are timed."""

    def __init__(self, inner: Scheduler) -> None:
        self._inner = inner
        self.events = self.decisions = 0
        self.spent_s = self.worst_s = 0.0

    def handle(self, event: Event) -> list[Command]:
        began_s = time.process_time()  # others on the machine are none of its business
        commands = self._inner.handle(event)
        took_s = time.process_time() - began_s
        self.events += 1
        self.decisions += len(commands)
        self.spent_s += took_s
        self.worst_s = max(self.worst_s, took_s)
        return commands


def big_fleet(nodes: int) -> FleetSpec:
    """The reference fleet's mix, about so many nodes, with the heavy model."""
    reference = load_fleet("reference")
    mix = sum(hardware.count for hardware in reference.hardware)
    return reference.scaled(max(1, round(nodes / mix))).model_copy(
        update={"gflop_per_image": {MODEL: GFLOP}}
    )


def measure(policy: str, nodes: int, shard_images: int) -> Cost:
    began_s = time.perf_counter()
    fleet = big_fleet(nodes)
    count = sum(hardware.count for hardware in fleet.hardware)
    arrivals = SyntheticSpec(jobs=JOBS)
    work_s = IMAGES_PER_NODE * count / fleet.capacity_images_per_s(MODEL)
    workload = WorkloadSpec(
        name="scale",
        models={MODEL: 1.0},
        load=work_s / arrivals.span_s,
        slack_s=SLACK_S,
        arrivals=arrivals,
        shard_images=shard_images,
    )
    jobs = workload.jobs(fleet)
    book = ProfileBook(fleet.profiles())
    own = SchedulerState(book, Policy(assignment_s=ASSIGNMENT_S))
    scheduler = Timed(own if policy == "merit" else BASELINES[policy](book, (MODEL,)))
    result = simulate(fleet, jobs, scheduler, horizon_s=workload.horizon_s(jobs))
    if result.images != sum(arrival.job.images for arrival in jobs):
        raise AssertionError("images are missing")
    return Cost(
        policy,
        count,
        result.images,
        sum(arrival.job.shards for arrival in jobs),
        scheduler.events,
        scheduler.decisions,
        scheduler.decisions / scheduler.spent_s,
        1e6 * scheduler.spent_s / scheduler.events,
        1e6 * scheduler.worst_s,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        result.missed,
        time.perf_counter() - began_s,
    )


def apart(policy: str, nodes: int, shard_images: int) -> Cost:
    """The same in a process of its own."""
    case = ["--case", f"{policy},{nodes},{shard_images}"]
    done = subprocess.run(
        [sys.executable, __file__, *case], stdout=subprocess.PIPE, text=True, check=True
    )
    return Cost(**json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--nodes", default="100,1000,10000")
    parser.add_argument("--policy", default="merit")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        policy, nodes, shard_images = options.case.split(",")
        print(json.dumps(asdict(measure(policy, int(nodes), int(shard_images)))))
        return
    sizes = [int(nodes) for nodes in options.nodes.split(",")]
    cases = [(nodes, 64) for nodes in sizes] + [(sizes[0], 6), (sizes[-1], 6)]
    costs = []
    if not options.json:
        print(f"{'nodes':>7}{'images':>15}{'shards':>13}{'events':>11}{'decisions/s':>13}"
              f"{'us/event':>10}{'worst ms':>10}{'peak MB':>9}{'missed':>8}"
              f"{'wall s':>8}")  # fmt: skip
    for nodes, shard_images in cases:
        cost = apart(options.policy, nodes, shard_images)
        costs.append(cost)
        if not options.json:
            print(f"{cost.nodes:7,}{cost.images:15,}{cost.shards:13,}{cost.events:11,}"
                  f"{cost.decisions_per_s:13,.0f}{cost.us_per_event:10.1f}"
                  f"{cost.us_worst / 1e3:10.1f}{cost.peak_mb:9.0f}{cost.missed:8}"
                  f"{cost.wall_s:8.0f}", flush=True)  # fmt: skip
    if options.json:
        print(json.dumps([asdict(cost) for cost in costs], indent=1))
    else:
        print(f"load average {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
