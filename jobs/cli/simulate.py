"""``un0 simulate``: simulate a day of a fleet: energy, deadlines, and the lower bound."""

from __future__ import annotations

from dataclasses import asdict
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cli.options import Json, plain_table, show_json, show_table, whole
from jobs.cli.progress import progress
from jobs.format import duration, joules
from jobs.output import can_show

if TYPE_CHECKING:
    from cluster.simulation.books import SimulationResult
    from cluster.simulation.compare import Day

COLUMNS, ROWS = 72, 8
BLOCKS, PLAIN_BLOCKS = " ▁▂▃▄▅▆▇█", " ..::==##"


def simulate_command(
    fleet: Annotated[str, typer.Argument(help="A YAML file, or a bundled one: reference.")],
    workload: Annotated[str, typer.Argument(help="A YAML file, or a bundled one: day.")],
    policy: Annotated[str, typer.Option(help="merit, or a baseline's name.")] = "merit",
    seed: Annotated[
        int,
        typer.Option(parser=whole(), metavar="N", help="Of arrivals, beliefs and failures."),
    ] = 0,
    as_json: Json = False,
) -> None:
    """Simulate a day of a fleet: energy, missed deadlines, and the least energy possible."""
    from cluster.scenario.fleet import load_fleet
    from cluster.scenario.workload import load_workload
    from cluster.simulation.compare import make_day, scheduler_named

    maker = scheduler_named(policy)
    with progress("finding the least possible energy", quiet=as_json) as step:
        day = make_day(load_fleet(fleet), load_workload(workload), seed)
        step(what="simulating")
        result = day.run(maker)
    figures = _figures(day, policy, result)
    if as_json:
        show_json({**figures, "power_bin_s": result.bin_s, "power_w": result.watts})
        return
    _show(figures, result)


def _figures(day: Day, policy: str, result: SimulationResult) -> dict[str, Any]:
    from cluster.simulation.compare import gap_j
    from cluster.simulation.energy import BUCKETS

    bound, energy_j = day.bound, result.energy_j
    return {
        "fleet": day.fleet.name,
        "workload": day.workload.name,
        "policy": policy,
        "seed": day.seed,
        "energy_j": energy_j,
        "energy_quality": "estimated",
        "energy_per_image_j": energy_j / result.images if result.images else None,
        "energy_whole_devices_j": energy_j + result.parked_j,
        "buckets_j": {bucket: result.bucket_j(bucket) for bucket in BUCKETS},
        "by_hardware_j": result.energy_by_hardware_j,
        "idle_share": result.bucket_j("idle") / energy_j if energy_j else None,
        "bound_j": bound.energy_j,
        "bound": asdict(bound),
        "energy_over_lb": energy_j / bound.energy_j,
        "gap_j": gap_j(result, bound),
        "images": result.images,
        "jobs": len(result.jobs),
        "missed": result.missed,
        "miss_rate": result.miss_rate,
        "makespan_s": result.makespan_s,
        "utilisation": result.utilisation,
        "peak_w": result.peak_w,
        "wakes": result.wakes,
        "leases": result.assignments,
    }


def _show(figures: dict[str, Any], result: SimulationResult) -> None:
    from cluster.simulation.compare import GAP_PARTS
    from cluster.simulation.energy import BUCKETS
    from jobs.report.text import percent

    print(
        f"{figures['workload']} on {figures['fleet']}, by {figures['policy']}, "
        f"seed {figures['seed']}: simulated, nothing here was measured"
    )
    bound_j = figures["bound_j"]
    lines = {
        "images": f"{figures['images']:,} of {figures['jobs']:,} jobs",
        "energy": f"{joules(figures['energy_j'])} above parked, "
        f"{joules(figures['energy_per_image_j'])} per image; "
        f"whole devices {joules(figures['energy_whole_devices_j'])}",
        "bound": f"{joules(bound_j)}: {figures['energy_over_lb']:.3f} times the least possible",
        "gap": ", ".join(
            f"{part} {percent(figures['gap_j'][part] / bound_j)}" for part in GAP_PARTS
        ),
        "missed": f"{figures['missed']:,} deadlines, {percent(figures['miss_rate'])}",
        "makespan": duration(figures["makespan_s"]),
        "utilised": f"{percent(figures['utilisation'])} of the devices' time",
        "idle": f"{percent(figures['idle_share'])} of the energy",
    }
    for name, text in lines.items():
        print(f"  {name:<10}{text}")
    table = plain_table("hardware", *BUCKETS, typed=("hardware",), right=BUCKETS, indent=2)
    for hardware, parts in figures["by_hardware_j"].items():
        table.add_row(hardware, *(joules(parts[b]) if parts[b] else "-" for b in BUCKETS))
    show_table(table)
    print("\n".join(power_chart(result.watts, result.end_s)))


def power_chart(watts: list[float], end_s: float) -> list[str]:
    """The fleet's power over time, as lines of block characters."""
    edges = [i * len(watts) // COLUMNS for i in range(COLUMNS + 1)]
    spans = (watts[a : max(b, a + 1)] for a, b in pairwise(edges))
    means = [sum(span) / len(span) for span in spans]
    top_w = max(means) or 1.0
    blocks = BLOCKS if can_show(BLOCKS) else PLAIN_BLOCKS
    lines = []
    for row in reversed(range(ROWS)):
        filled = (min(max(w / top_w * ROWS - row, 0.0), 1.0) for w in means)
        label = (
            f"{top_w * (row + 1) / ROWS:8,.0f} W " if row in (ROWS - 1, ROWS // 2 - 1) else " " * 11
        )
        lines.append(label + "".join(blocks[round(part * 8)] for part in filled))
    start, end = "0", duration(end_s)
    lines.append(" " * 11 + start + " " * max(1, COLUMNS - len(start) - len(end)) + end)
    return lines
