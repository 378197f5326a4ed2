"""Compiled loops: how this package uses numba. Slow to import, so import it where it is used."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba

from un0.paths import cache_here, home

logger = logging.getLogger(__name__)


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled, without the GIL, cached on disk where that is possible: in ``NUMBA_CACHE_DIR``,
    beside the source, in numba's own folder for the user, or in this package's cache folder."""
    if home() is None and not numba.config.CACHE_DIR:
        _take_own_folder()  # numba would make a folder named "~" in the working directory
    for _ in range(2):
        with suppress(RuntimeError):  # numba found no folder that it can write to
            dispatcher = numba.njit(cache=True, nogil=True)(function)
            _drop_stale(Path(dispatcher.stats.cache_path), function)
            return dispatcher
        if not _take_own_folder():
            break
    return numba.njit(nogil=True)(function)


@cache  # said once
def _take_own_folder() -> bool:
    """Let numba keep compiled code in this package's cache folder; False if that is no help."""
    own = cache_here()
    if not own.writable:
        logger.warning("%s", own.costs)
        return False
    numba.config.CACHE_DIR = str(own.folder / "numba")
    logger.info("compiled code is kept in %s", own.folder)
    return True


def _drop_stale(cache: Path, function: Callable[..., Any]) -> None:
    """Forget compiled code older than any source beside the function's. numba looks at the
    function's own file only, but the code of what it calls is compiled into it."""
    source = Path(function.__code__.co_filename)
    with suppress(OSError):
        newest_s = max(path.stat().st_mtime for path in source.parent.glob("*.py"))
        for index in cache.glob(f"{source.stem}.{function.__qualname__}-*.nbi"):
            if index.stat().st_mtime < newest_s:
                index.unlink(missing_ok=True)
