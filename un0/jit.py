"""Compiled loops: how this package uses numba. Slow to import, so import it where it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def compiled(function: Callable[..., Any]) -> Any:
    """Compiled, without the GIL, cached on disk; uncached where no cache folder is writable.

    The cache looks at the function's own file only: after a change to a compiled function, touch
    the files whose compiled functions call it.
    """
    try:
        return numba.njit(cache=True, nogil=True)(function)
    except RuntimeError:
        return numba.njit(nogil=True)(function)
