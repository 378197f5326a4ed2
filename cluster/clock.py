"""The only place that reads a clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime


def utc_now() -> datetime:
    """Wall-clock time with its zone (UTC): for stamps on records, never for durations."""
    return datetime.now(UTC)


def monotonic_s() -> float:
    """Seconds since an arbitrary moment, never going back: for durations and time limits."""
    return time.monotonic()
