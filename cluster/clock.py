"""The only place that reads a clock."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta


def utc_now() -> datetime:
    """Wall-clock time with its zone (UTC): for stamps on records, never for durations."""
    return datetime.now(UTC)


def monotonic_s() -> float:
    """Seconds since an arbitrary moment, never going back: for durations and time limits."""
    return time.monotonic()


def monotonic_ns() -> int:
    """The same clock in nanoseconds; all processes of a host share it until it reboots."""
    return time.monotonic_ns()


@dataclass(frozen=True)
class Anchor:
    """A moment on both clocks, by which times on this host's monotonic clock become UTC.

    Keep one for a process's life: then the stamps of consecutive intervals neither overlap nor
    leave a hole, even when the wall clock is set.
    """

    utc: datetime
    monotonic_ns: int

    @staticmethod
    def now() -> Anchor:
        return Anchor(utc_now(), monotonic_ns())

    def utc_at(self, at_ns: int) -> datetime:
        """The UTC time of a monotonic one, in whole microseconds."""
        return self.utc + timedelta(microseconds=(at_ns - self.monotonic_ns) // 1000)

    def monotonic_at(self, utc: datetime) -> int:
        """The monotonic time in nanoseconds of a UTC one."""
        return self.monotonic_ns + (utc - self.utc) // timedelta(microseconds=1) * 1000
