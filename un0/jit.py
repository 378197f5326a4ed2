"""Compiled loops: how this package uses numba. Slow to import, so import it where it is used."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled, without the GIL, cached on disk; uncached where no cache folder is writable."""
    try:
        dispatcher = numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)
    _drop_stale(Path(dispatcher.stats.cache_path), function)
    return dispatcher


def _drop_stale(cache: Path, function: Callable[..., Any]) -> None:
    """Forget compiled code older than any source beside the function's. numba looks at the
    function's own file only, but the code of what it calls is compiled into it."""
    source = Path(function.__code__.co_filename)
    with suppress(OSError):
        newest_s = max(path.stat().st_mtime for path in source.parent.glob("*.py"))
        for index in cache.glob(f"{source.stem}.{function.__qualname__}-*.nbi"):
            if index.stat().st_mtime < newest_s:
                index.unlink(missing_ok=True)
