"""Sources of readings: what each provider of energy figures implements, or why it refuses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from cluster.ledger.reading import Device, Reading

ClockNs = Callable[[], int]
"""Nanoseconds on the host's monotonic clock."""


class Source(Protocol):
    """Reads one device. Safe to call from several threads."""

    @property
    def provider(self) -> str:
        """Where the joules come from, for example ``nvml-counter``."""
        ...

    @property
    def device(self) -> Device: ...

    def read(self) -> Reading:
        """The energy so far. Never raises: what cannot be read is ``missing``."""
        ...

    def close(self) -> None:
        """Let go of the device. May be called twice; readings afterwards are ``missing``."""
        ...


class Refused(Exception):
    """A provider cannot read a device. fix: what the user can do about it, if anything."""

    def __init__(self, reason: str, fix: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix
