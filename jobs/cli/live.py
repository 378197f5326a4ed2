"""Follow a run: a live view on a terminal, one line elsewhere."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cluster.clock import utc_now
from cluster.progress import Snapshot
from cluster.states import ReplicaState
from cluster.types import JobRecord
from jobs.format import duration, energy_per_image

COLOURS = {ReplicaState.AWAKE: "green", ReplicaState.LOST: "red"}


class Follower:
    """Context manager that shows a run's progress on a terminal. Elsewhere it prints one line with
    the job's id, unless quiet."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._due: datetime | None = None
        watched = console.is_terminal and not quiet
        self._live = Live(console=console, transient=True, auto_refresh=False) if watched else None

    def on_job(self, record: JobRecord) -> None:
        """Show that the job is in the store."""
        deadline_s = record.spec.deadline
        if deadline_s is not None:
            self._due = record.submitted_at + timedelta(seconds=deadline_s)
        self._wait(f"job {record.workload.job_id}: reading what it has, starting replicas")
        if self._live is None and not self._quiet:
            self._console.print(f"job {record.workload.job_id}", markup=False)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """Show the job's progress."""
        if self._live is not None:
            left_s = None if self._due is None else (self._due - utc_now()).total_seconds()
            with suppress(OSError):  # a terminal that was closed must not break the run
                self._live.update(live_view(snapshot, left_s), refresh=True)

    def _wait(self, what: str) -> None:
        """Show what is under way before there is a first snapshot."""
        if self._live is not None:
            with suppress(OSError):
                self._live.update(Text(f"{what} ..."), refresh=True)

    def __enter__(self) -> Follower:
        if self._live is not None:
            self._live.start()
            self._wait("reading the model and the store")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live is not None:
            with suppress(OSError):
                self._live.stop()


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
    shares, bottleneck = snapshot.stages.shares, snapshot.stages.bottleneck
    if shares is not None:
        busy = ", ".join(f"{stage} {share:.0%}" for stage, share in shares.items())
        facts.add_row("busy", busy, f"bottleneck: {bottleneck}")
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
            Text(view.state, COLOURS.get(view.state, "yellow")),
            Text(view.host_name),
            Text(view.hardware),
            Text(view.provider),
            f"{view.committed_images:,}",
            f"{view.open_images:,}",
            Text(view.note[:60]),
        )
    return table
