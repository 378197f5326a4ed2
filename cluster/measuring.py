"""The one measuring loop: windows of work without a pause, and the figures of several of them.

The energy of a window is what the node's meter would charge a replica for the same work. Figures
are those of the median window, so that one odd window moves none.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cluster.clock import monotonic_s
from cluster.energy import in_joules, sum_energy
from cluster.metering.bench import BenchMeter
from cluster.scheduler.request import OperatingPoint, Performance
from cluster.types import Energy, EnergyQuality
from un0 import Sampler

ROUNDS = 3
OnStep = Callable[[int, int, str], None]
Bounds = tuple[float | None, float | None]


@dataclass(frozen=True)
class Window:
    """Images made without a pause, what it took, and what the meter says of it.

    host: of a window on a GPU, what the CPUs beside it took for this process; None on CPUs, and
    where the CPUs have no meter of their own.
    """

    images: int
    duration_s: float
    energy: Energy
    host: Energy | None = None


class Measured:
    """Figures of windows at one batch size: medians."""

    batch_size: int
    windows: tuple[Window, ...]

    @property
    def images_per_s(self) -> float:
        """The median window's."""
        return statistics.median(w.images / w.duration_s for w in self.windows)

    @property
    def energy_per_image_j(self) -> float | None:
        """The median window's; None if one is not known."""
        return self._per_image([w.energy.energy_mj for w in self.windows])

    @property
    def bounds_j(self) -> Bounds:
        """Low and high of an image's joules where they are an estimate."""
        return (
            self._per_image([w.energy.low_mj for w in self.windows]),
            self._per_image([w.energy.high_mj for w in self.windows]),
        )

    @property
    def quality(self) -> EnergyQuality:
        """That of the least sure window."""
        return sum_energy(w.energy for w in self.windows).quality

    @property
    def host_energy_per_image_j(self) -> float | None:
        """What the CPUs beside a GPU took; None where that is not known."""
        return self._per_image([w.host.energy_mj if w.host else None for w in self.windows])

    @property
    def host_bounds_j(self) -> Bounds:
        """Low and high of it where it is an estimate."""
        return (
            self._per_image([w.host.low_mj if w.host else None for w in self.windows]),
            self._per_image([w.host.high_mj if w.host else None for w in self.windows]),
        )

    @property
    def host_quality(self) -> EnergyQuality | None:
        """That of the least sure window; None where no window has a meter of its CPUs."""
        hosts = [w.host for w in self.windows if w.host is not None]
        return sum_energy(hosts).quality if hosts else None

    def performance(self) -> Performance | None:
        """The same as the scheduler knows it; None without joules."""
        energy_j = self.energy_per_image_j
        if not energy_j:
            return None
        power_w = energy_j * self.images_per_s
        point = OperatingPoint(self.batch_size)
        return Performance(
            point, self.images_per_s, power_w, self.quality, *self.bounds_j, len(self.windows)
        )

    def _per_image(self, values_mj: Sequence[int | None]) -> float | None:
        known = [
            joules
            for mj, window in zip(values_mj, self.windows, strict=True)
            if (joules := in_joules(mj, window.images)) is not None
        ]
        return statistics.median(known) if known and len(known) == len(values_mj) else None


def measure(
    bench: BenchMeter,
    make: Callable[[int, int], None],
    unit: int,
    seconds: float,
    *,
    most: int | None = None,
    finish: Callable[[], None] = lambda: None,
) -> Window:
    """Images made without a pause for at least so long.

    make: makes the images (first, count); count is a multiple of ``unit``, and at most ``most``.
    finish: waits for what of them is still under way; part of the window.
    """
    made, wanted = 0, unit
    with bench.window() as metered:
        start_s = monotonic_s()
        while True:
            make(made, wanted)
            made += wanted
            spent_s = monotonic_s() - start_s
            if spent_s >= seconds:
                break
            wanted = unit * math.ceil(made / spent_s * (seconds - spent_s) / unit)
            wanted = wanted if most is None else min(wanted, most)
        finish()
    return Window(made, metered.duration_s, metered.energy, metered.host)


def engine_window(bench: BenchMeter, sampler: Sampler, seconds: float) -> Window:
    """A window of the sampler's own batches, on all its threads."""

    def make(first: int, count: int) -> None:
        classes = np.arange(first, first + count) % sampler.config.num_classes
        for _ in sampler.generate_tiles(0, first, classes):
            pass

    return measure(bench, make, sampler.tile * sampler.threads, seconds)
