"""The planner's program against PyPSA networks of the same cases, both by HiGHS.

A network's bus is the queue of images: demand flows in, a store with a limit by hour holds what may
still wait, and nodes take images out, as generators of sign -1 in modules of one node. Each
measurement is a process of its own: CPU seconds of stating and solving (not of imports), and peak
memory with them; ours and theirs by turns, medians.

    pip install pypsa
    python benchmarks/planner_pypsa.py [--repeats 3] [--json]
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from cluster.optimise.capacity import Demand, Group, Point, Problem, Weights, cyclic
from cluster.optimise.capacity_plan import solve

HOURS, DAY_S, KWH, GAP = 24, 86_400.0, 3.6e6, 1e-5
ZERO = (0.0,) * HOURS
MONEY = Weights(0.0, 1.0, 0.0)
CANNOT = {
    "power cap by rack, of whole nodes at once": "no constraint on the draw of modules at once",
    "money cap with energy as the objective": "one objective; no constraint on another's sum",
    "reserve and n-1 on backlog": "security constraints are for lines; a reserve needs own code",
    "loading that takes a node's time": "start-up costs, but no capacity lost to them",
    "nodes awake for part of an hour": "commitment is by snapshot",
    "which single limit to relax, by how much": "an infeasible subset, without amounts",
}


def node(name: str, rate: float, power_w: float, **other: Any) -> Group:
    usual: dict[str, Any] = {
        "site": "s", "rack": None, "points": (Point("m", rate, power_w),), "idle_w": 0.0,
        "parked_w": 0.0, "load_s": 0.0, "load_w": 0.0, "usd_per_j": ZERO, "g_per_j": ZERO,
    }  # fmt: skip
    usual["idle_w"] = other.get("parked_w", 0.0)
    return Group(name=name, **(usual | other))


def steady(rate: float, wait: int = HOURS) -> Demand:
    return Demand("d", "m", (rate * 3600.0,) * HOURS, wait)


def burst(images: float, wait: int, hour: int) -> Demand:
    return Demand("d", "m", tuple(images if h == hour else 0.0 for h in range(HOURS)), wait)


def wave(rate: float, wait: int) -> Demand:
    """Three times as much by day as by night."""
    shares = [1.5 if 8 <= hour < 20 else 0.5 for hour in range(HOURS)]
    return Demand("d", "m", tuple(rate * 3600.0 * share for share in shares), wait)


def problem(*groups: Group, demand: Demand, **other: Any) -> Problem:
    return Problem(groups, (demand,), gap=GAP, **other)


def many(classes: int) -> Problem:
    """Classes of 1 to 10 images/s with a trend of J/image and parked power against each other."""
    groups = [
        node(f"c{i:02d}", 1.0 + 9.0 * i / classes, 100.0 + 700.0 * i / classes,
             parked_w=5.0 + 3.0 * ((7 * i) % classes) / classes, idle_w=20.0)
        for i in range(classes)
    ]  # fmt: skip
    return problem(*groups, demand=wave(40.0, 4))


CHEAP, DEAR = 0.1 / KWH, 0.3 / KWH
A = node("a", 1.0, 100.0, keep_new_usd=24.0)
B = node("b", 2.0, 150.0, keep_new_usd=72.0)
CASES: dict[str, Callable[[], Problem]] = {
    "one class": lambda: problem(node("a", 1.0, 100.0, parked_w=10.0), demand=steady(2.5)),
    "two classes, energy": lambda: problem(A, B, demand=steady(2.0)),
    "two classes, money": lambda: problem(A, B, demand=steady(2.0), weights=MONEY),
    "idle-dominated": lambda: problem(
        node("a", 10.0, 500.0, idle_w=100.0, parked_w=80.0),
        node("b", 1.0, 100.0),
        demand=steady(0.01),
    ),
    "deadline-bound": lambda: problem(
        node("a", 1.0, 100.0, parked_w=10.0), demand=burst(7200.0, 1, 23)
    ),
    "wave with backlog": lambda: problem(
        node("a", 1.0, 100.0, parked_w=10.0),
        node("b", 3.0, 240.0, parked_w=50.0),
        demand=wave(4.0, 6),
    ),
    "two sites": lambda: problem(
        node("north", 1.0, 100.0, usd_per_j=(CHEAP,) * 12 + (DEAR,) * 12, keep_new_usd=0.01),
        node("south", 1.0, 100.0, usd_per_j=(DEAR,) * 12 + (CHEAP,) * 12, keep_new_usd=0.01),
        demand=steady(1.0, 0),
        weights=MONEY,
    ),
    "ten classes": lambda: many(10),
}


def ours(asked: Problem) -> tuple[float, float]:
    """Objective and gap."""
    plan = solve(asked)
    assert plan is not None, "every case has a plan"
    return plan.value, plan.gap


def theirs(asked: Problem) -> tuple[float, float]:
    """Objective and gap of the network."""
    import pypsa

    logging.disable(logging.WARNING)
    network = pypsa.Network()
    network.set_snapshots(range(HOURS))
    network.add("Bus", "queue")
    demand, weights = asked.demands[0], asked.weights
    network.add("Load", "images", bus="queue", p_set=[-images for images in demand.images])
    most = cyclic(demand.images, demand.slots)
    largest = max(float(most.max()), 1.0)
    network.add(
        "Store", "waiting", bus="queue", e_nom=largest, e_cyclic=True, e_max_pu=most / largest
    )
    for group in asked.groups:
        point = group.points[0]
        each = point.images_per_s * asked.slot_s  # images of a node in a slot
        per_j = [weights.energy + weights.money * usd for usd in group.usd_per_j]
        parked = sum(group.parked_w * asked.slot_s * price for price in per_j)
        above_j = (point.power_w - group.parked_w) / point.images_per_s
        network.add(
            "Generator",
            group.name,
            bus="queue",
            sign=-1,
            p_nom_extendable=True,
            p_nom_mod=each,
            p_nom_max=each * asked.useful_nodes(group),
            capital_cost=(parked + weights.money * group.keep_new_usd) / each,
            marginal_cost=[above_j * price for price in per_j],
        )
    status, condition = network.optimize(
        solver_name="highs",
        solver_options={"mip_rel_gap": GAP, "output_flag": False},
        include_objective_constant=False,
    )
    assert status == "ok", condition
    return float(network.objective), GAP


ENGINES = {"ours": ours, "pypsa": theirs}


@dataclass(frozen=True)
class Row:
    """A case: both optima, their distance as a share, CPU s and peak MB of each."""

    case: str
    ours: float
    pypsa: float
    apart: float
    ours_cpu_s: float
    pypsa_cpu_s: float
    ours_mb: float
    pypsa_mb: float


def child(engine: str, case: str) -> None:
    """One measurement, in this process, as JSON on its last line."""
    if engine == "pypsa":
        import linopy  # noqa: F401
        import pypsa  # noqa: F401
    asked = CASES[case]()
    started_s = time.process_time()
    value, gap = ENGINES[engine](asked)
    cpu_s = time.process_time() - started_s
    mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sys.stdout.flush()
    print(json.dumps({"value": value, "gap": gap, "cpu_s": cpu_s, "mb": mb}))


def measured(engine: str, case: str) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", engine, case]
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{engine}, {case}: {done.stderr[-2000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def row(case: str, repeats: int) -> Row:
    found: dict[str, list[dict[str, float]]] = {engine: [] for engine in ENGINES}
    for _ in range(repeats):
        for engine in ENGINES:
            found[engine].append(measured(engine, case))

    def median(engine: str, what: str) -> float:
        return statistics.median(one[what] for one in found[engine])

    mine, other = median("ours", "value"), median("pypsa", "value")
    return Row(
        case,
        mine,
        other,
        abs(mine - other) / max(abs(mine), 1e-12),
        median("ours", "cpu_s"),
        median("pypsa", "cpu_s"),
        median("ours", "mb"),
        median("pypsa", "mb"),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*options.child)
        return
    if importlib.util.find_spec("pypsa") is None:
        print("PyPSA is not installed: pip install pypsa", file=sys.stderr)
        print("[]" if options.json else "skipped")
        return
    rows = [row(case, options.repeats) for case in CASES]
    if options.json:
        print(json.dumps({"rows": [asdict(r) for r in rows], "cannot": CANNOT}, indent=1))
        return
    print(f"{'case':<22}{'ours':>13}{'PyPSA':>13}{'apart':>10}{'CPU s':>15}{'peak MB':>13}")
    for r in rows:
        times = f"{r.ours_cpu_s:.2f} / {r.pypsa_cpu_s:.2f}"
        memory = f"{r.ours_mb:.0f} / {r.pypsa_mb:.0f}"
        print(f"{r.case:<22}{r.ours:>13.6g}{r.pypsa:>13.6g}{r.apart:>10.1e}{times:>15}{memory:>13}")
    print("PyPSA has no statement, without code of one's own, for:")
    for what, why in CANNOT.items():
        print(f"  {what}: {why}")


if __name__ == "__main__":
    main()
