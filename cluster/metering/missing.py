"""The last resort: a device whose energy is unknown."""

from __future__ import annotations

from cluster.clock import monotonic_ns
from cluster.ledger.reading import Device, Reading, missing
from cluster.metering.source import ClockNs


class MissingSource:
    """Every reading is missing; its method says why."""

    provider = "missing"

    def __init__(self, device: Device, why: str, clock_ns: ClockNs = monotonic_ns) -> None:
        self.device = device
        self._why = why
        self._clock_ns = clock_ns

    def read(self) -> Reading:
        return missing(self._clock_ns(), self._why)

    def close(self) -> None:
        pass
