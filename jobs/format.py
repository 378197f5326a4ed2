"""Figures as people read them: an estimate never without its bounds, unknown never as 0."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.progress import Snapshot
from cluster.types import Energy
from jobs.result import JobResult

UNKNOWN = "unknown"
MOST_LACKING = 5  # shards that are named


def joules(value_j: float | None) -> str:
    """``1.23 kJ``, ``4.5 mJ``; ``unknown`` for None."""
    if value_j is None:
        return UNKNOWN
    for limit, divisor, unit in ((1e6, 1e6, "MJ"), (1e3, 1e3, "kJ"), (1.0, 1.0, "J")):
        if abs(value_j) >= limit:
            return f"{value_j / divisor:.3g} {unit}"
    return f"{value_j * 1e3:.3g} mJ"


def bounded(value_j: float | None, low_j: float | None, high_j: float | None) -> str:
    """The figure, with its bounds when it has them."""
    text = joules(value_j)
    return (
        text if low_j is None or high_j is None else f"{text} ({joules(low_j)} to {joules(high_j)})"
    )


def energy_per_image(energy: Energy, images: int) -> str:
    """J/image with bounds and quality, for example ``3.1 mJ (1.5 mJ to 7.6 mJ) estimated``."""
    if energy.energy_mj is None or not images:
        return UNKNOWN
    values = (energy.energy_mj, energy.low_mj, energy.high_mj)
    per_image = [None if mj is None else mj / 1e3 / images for mj in values]
    return f"{bounded(*per_image)} {_how(energy.quality)}"


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def live_view(snapshot: Snapshot, deadline_s: float | None = None) -> RenderableType:
    """The display of a running job: progress, rate, joules, one row per replica."""
    made = snapshot.committed_images + snapshot.open_images
    rate = (snapshot.run_images + snapshot.open_images) / snapshot.run_s if snapshot.run_s else 0.0
    eta_s = (snapshot.total_images - made) / rate if rate else None
    facts = Table.grid(padding=(0, 2))
    facts.add_row("job", Text(snapshot.job_id, "bold"), snapshot.state)
    facts.add_row(
        "images",
        f"{snapshot.committed_images:,} of {snapshot.total_images:,} committed",
        f"{made - snapshot.committed_images:,} more in hand",
    )
    facts.add_row(
        "rate", f"{rate:,.0f} images/s", f"ETA {duration(eta_s) if eta_s is not None else '-'}"
    )
    facts.add_row(
        "energy", energy_per_image(snapshot.energy, snapshot.committed_images), "per image"
    )
    if deadline_s is not None:
        late = eta_s is not None and eta_s > deadline_s
        facts.add_row(
            "deadline",
            f"in {duration(max(deadline_s, 0))}",
            Text("will be missed", "red") if late else "",
        )
    if snapshot.note:
        facts.add_row("waiting", snapshot.note, "")
    if snapshot.retries:
        facts.add_row("retries", f"{snapshot.retries}", "")
    bar = Table.grid()
    bar.add_row(ProgressBar(total=snapshot.total_images, completed=made, width=60))
    return Group(bar, facts, _replica_table(snapshot))


def _replica_table(snapshot: Snapshot) -> Table:
    table = Table(box=None, padding=(0, 2), header_style="dim")
    for column in ("replica", "state", "node", "hardware", "meter", "committed", "in hand", ""):
        table.add_column(column, justify="right" if column in ("committed", "in hand") else "left")
    for view in snapshot.replicas:
        table.add_row(
            view.replica_id,
            Text(view.state, {"live": "green", "lost": "red"}.get(view.state, "yellow")),
            Text(view.host_name),
            Text(view.hardware),
            Text(view.provider),
            f"{view.committed_images:,}",
            f"{view.open_images:,}",
            Text(view.note[:60]),
        )
    return table


def summary(result: JobResult) -> str:
    """The last words of a run, for people."""
    figures = (result.energy_j, result.energy_low_j, result.energy_high_j)
    per_image = [None if value is None else value / max(result.images, 1) for value in figures]
    overhead = (result.overhead_j, result.overhead_low_j, result.overhead_high_j)
    lines = [f"Job {result.job_id} {result.state}: {result.images:,} images in the store"]
    if result.images_per_s is not None:
        share = result.generate_share
        generating = "" if share is None else f"; generating {share:.1%} of that time"
        lines.append(
            f"  rate      {result.images_per_s:,.0f} images/s over {duration(result.seconds)}, "
            f"after {duration(result.startup_s)} of start-up{generating}"
        )
    if result.energy_j is None:
        lines.append(f"  energy    {UNKNOWN}")
    else:
        lines += [
            f"  energy    {bounded(*per_image)} per image, {bounded(*figures)} in all",
            f"            {_how(result.energy_quality)} by {result.energy_method}",
        ]
    if result.overhead_j:  # a run whose replicas were up already has none
        lines.append(
            f"  overhead  {bounded(*overhead)} for loading and warm-up, "
            f"{_how(result.overhead_quality)}"
        )
    lines.append(f"  store     {result.store}")
    if result.reason:
        lines.append(f"  reason    {result.reason}")
    lines += [f"  lacking   shard {s.shard}: {s.reason}" for s in result.set_aside[:MOST_LACKING]]
    if len(result.set_aside) > MOST_LACKING:
        lines.append(f"            and {len(result.set_aside) - MOST_LACKING} more")
    return "\n".join(lines)


def _how(quality: str) -> str:
    return quality.replace("_", " ")
