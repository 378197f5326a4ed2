"""Follow a run: a live view on a terminal, one line elsewhere."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta
from types import TracebackType

from rich.console import Console
from rich.live import Live

from cluster.clock import utc_now
from cluster.progress import Snapshot
from cluster.types import JobRecord
from jobs.format import live_view


class Follower:
    """Shows a run on a terminal while used as a context manager; elsewhere, unless quiet, it only
    names the job."""

    def __init__(self, console: Console, *, quiet: bool) -> None:
        self._console = console
        self._quiet = quiet
        self._due: datetime | None = None
        watched = console.is_terminal and not quiet
        self._live = Live(console=console, transient=True, auto_refresh=False) if watched else None

    def on_job(self, record: JobRecord) -> None:
        """The job is in the store."""
        deadline_s = record.spec.get("deadline")
        if deadline_s is not None:
            self._due = record.submitted_at + timedelta(seconds=float(deadline_s))
        if self._live is None and not self._quiet:
            self._console.print(f"job {record.workload.job_id}", markup=False)

    def on_snapshot(self, snapshot: Snapshot) -> None:
        """It has come this far."""
        if self._live is not None:
            left_s = None if self._due is None else (self._due - utc_now()).total_seconds()
            with suppress(OSError):  # a terminal that was closed must not break the run
                self._live.update(live_view(snapshot, left_s), refresh=True)

    def __enter__(self) -> Follower:
        if self._live is not None:
            self._live.start()
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
