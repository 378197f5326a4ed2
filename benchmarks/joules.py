"""Seconds and joules of a piece of work on one device, by the project's own meters.

A window is at least ``MIN_WINDOW_S`` long, because counters move every 20 to 100 ms. On a GPU the
joules are the GPU's; on a CPU they are the machine's, other work included, and an estimate where
there is no RAPL.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import process_time

import torch

from cluster.clock import monotonic_s
from cluster.energy import MIN_WINDOW_S, sum_energy
from cluster.ledger.timeline import Timeline
from cluster.metering.node import gpu_source, host_sources
from cluster.metering.source import Source
from cluster.metering.tenant import tenant_here
from cluster.types import MISSING_ENERGY, Energy

OUTAGE_NS = 10**10


@dataclass(frozen=True)
class Cost:
    """What ``items`` pieces of work took. cpu_s: of this process, whatever else the machine did."""

    items: int
    duration_s: float
    cpu_s: float
    energy: Energy

    @property
    def seconds_each(self) -> float:
        return self.duration_s / self.items

    def joules_each(self, bound: str = "energy_mj") -> float | None:
        """Joules of one piece, or its ``low_mj`` or ``high_mj``; None if unknown."""
        value: int | None = getattr(self.energy, bound)
        return None if value is None else value / 1e3 / self.items


class Meter:
    """The best source of the device's joules."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._sources: list[Source] = (
            [gpu_source(tenant_here("benchmark", device.type))]
            if device.type == "cuda"
            else host_sources()
        )

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        for source in self._sources:
            source.close()

    def measure(self, work: Callable[[], int], min_s: float = MIN_WINDOW_S) -> Cost:
        """Repeat ``work``, which returns how many pieces it did, until the window is full."""
        timelines = [Timeline(source.device, 0, OUTAGE_NS) for source in self._sources]
        self._wait()
        for timeline, source in zip(timelines, self._sources, strict=True):
            timeline.read(source.read())
        begin_s, begin_cpu_s, items = monotonic_s(), process_time(), 0
        while True:
            items += work()
            self._wait()
            duration_s = monotonic_s() - begin_s
            if duration_s >= min_s:
                break
        cpu_s = process_time() - begin_cpu_s
        parts = [
            _energy(timeline, source)
            for timeline, source in zip(timelines, self._sources, strict=True)
        ]
        return Cost(items, duration_s, cpu_s, sum_energy(parts) if parts else MISSING_ENERGY)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)


def _energy(timeline: Timeline, source: Source) -> Energy:
    interval = timeline.read(source.read())
    if interval is None:
        return MISSING_ENERGY
    return Energy(
        energy_mj=interval.energy_mj,
        low_mj=interval.low_mj,
        high_mj=interval.high_mj,
        quality=interval.quality,
        method=interval.method,
    )
