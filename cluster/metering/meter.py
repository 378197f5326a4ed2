"""The meter protocol: each reading closes one interval of energy and opens the next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cluster.types import MISSING_ENERGY, Energy


class Meter(Protocol):
    """Meters one device for one replica. Not thread-safe: one caller at a time.

    hardware: what is metered, for example ``NVIDIA H100 80GB HBM3`` or ``cpu: AMD EPYC``.
    provider: where the joules come from, for example ``nvml-counter``.
    """

    @property
    def hardware(self) -> str: ...

    @property
    def provider(self) -> str: ...

    def lap(self) -> Energy:
        """Energy since the last lap, or since the meter was made. Never raises: a reading that
        fails is ``missing``."""
        ...

    def close(self) -> None: ...


@dataclass
class MissingMeter:
    """For a device whose energy nobody here can tell; ``provider`` says why."""

    hardware: str
    provider: str

    def lap(self) -> Energy:
        return MISSING_ENERGY

    def close(self) -> None:
        pass
