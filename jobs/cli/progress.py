"""Progress of what takes seconds: on a terminal, on standard error; elsewhere nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

OnStep = Callable[..., None]


@contextmanager
def progress(what: str, *, quiet: bool = False) -> Iterator[OnStep]:
    """Show that ``what`` is under way, and for how long, until the block ends; then it is gone.

    Yields ``step(done, total, what)``, which says how far it has come; each may be left out. A
    task whose total nobody knows moves without a share. quiet: show nothing, as with ``--json``.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda *_, **__: None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None)

        def step(
            done: float | None = None, total: float | None = None, what: str | None = None
        ) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield step
