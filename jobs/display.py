"""Follow a run: a live view on a terminal, silence elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live

from cluster.clock import monotonic_s
from cluster.progress import Snapshot
from jobs.render import live_view
from jobs.service import OnSnapshot


@contextmanager
def follow(console: Console, deadline_s: float | None, quiet: bool) -> Iterator[OnSnapshot | None]:
    """A callback that shows each snapshot, or None where nobody watches."""
    if quiet or not console.is_terminal:
        yield None
        return
    began_s = monotonic_s()
    with Live(console=console, transient=True, auto_refresh=False) as live:

        def show(snapshot: Snapshot) -> None:
            left_s = None if deadline_s is None else deadline_s - (monotonic_s() - began_s)
            live.update(live_view(snapshot, left_s), refresh=True)

        yield show
