"""Meters of one replica: each lap closes one interval of energy and opens the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Protocol

from cluster.energy import sum_energy
from cluster.metering.reading import Reading, Source
from cluster.types import MISSING_ENERGY, Energy

BusySeconds = Callable[[], float]


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


class LapMeter:
    """Laps of one source. Of a shared board, the device's share: the shares of a board never add
    up to more than the board."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self.provider = source.provider
        device = source.device
        self.hardware = f"cpu: {device.hw_name}" if device.hw_type == "cpu" else device.hw_name
        self._last = source.read()

    def lap(self) -> Energy:
        last, self._last = self._last, self._source.read()
        return between(last, self._last, self._source.device.share)

    def close(self) -> None:
        self._source.close()


class CpuShareMeter:
    """Laps of a machine's CPU counters, split among its processes by the CPU time they used.

    A replica gets its part of the busy time: of everything the packages and their memory used,
    their idle power included. So the replicas of a machine add up to no more than its counters,
    and one replica alone on a quiet machine is charged nearly all of it.
    """

    def __init__(
        self, sources: Sequence[Source], process_s: BusySeconds, machine_s: BusySeconds
    ) -> None:
        self._meters = [LapMeter(source) for source in sources]
        self._process_s, self._machine_s = process_s, machine_s
        self.provider = self._meters[0].provider
        self.hardware = self._meters[0].hardware
        self._last = self._process_s(), self._machine_s()

    def lap(self) -> Energy:
        energy = sum_energy([meter.lap() for meter in self._meters])
        last_process_s, last_machine_s = self._last
        try:
            self._last = self._process_s(), self._machine_s()
        except (OSError, ValueError):
            return MISSING_ENERGY
        used_s = self._last[0] - last_process_s
        busy_s = max(self._last[1] - last_machine_s, used_s)  # the machine's clock ticks coarsely
        if energy.energy_mj is None:
            return energy
        share = used_s / busy_s if busy_s > 0 else 0.0
        return energy.model_copy(
            update={
                "energy_mj": int(energy.energy_mj * share),
                "method": f"{energy.method} x share of CPU time",
            }
        )

    def close(self) -> None:
        for meter in self._meters:
            meter.close()


def between(first: Reading, last: Reading, share: Fraction = Fraction(1)) -> Energy:
    """The energy from one reading to a later one; missing if either is, or an epoch lies between.

    share: of a board's energy, rounded so that the laps of a share add up without loss.
    """
    if first.energy_mj is None or last.energy_mj is None or first.epoch != last.epoch:
        return MISSING_ENERGY

    def span(start_mj: int | None, stop_mj: int | None) -> int | None:
        if start_mj is None or stop_mj is None:
            return None
        return int(stop_mj * share) - int(start_mj * share)

    part = "" if share == 1 else f" x {share} of a shared board"
    return Energy(
        energy_mj=span(first.energy_mj, last.energy_mj),
        low_mj=span(first.low_mj, last.low_mj),
        high_mj=span(first.high_mj, last.high_mj),
        quality=last.quality,
        method=f"{last.method}{part}",
    )
