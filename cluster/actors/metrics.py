"""The energy log's rows as Prometheus metrics, through Ray's own exporter.

Labels have few values whatever the fleet does: no job, shard, host or device is among them (Ray
adds the node). What needs those is in the energy log.
"""

from __future__ import annotations

from collections.abc import Iterable

from ray.util.metrics import Counter, Gauge

from cluster.ledger.usage import EnergyRow

_LABELS = ("bucket", "zone", "hw_type", "quality")


class EnergyMetrics:
    """Counts rows as they become final, some seconds after the energy was spent."""

    def __init__(self) -> None:
        self._joules = Counter(
            "un0_energy_joules_total", "Energy by where it went; gaps are not in it.", _LABELS
        )
        self._images = Counter("un0_images_total", "Images of attempts that won or lost.", _LABELS)
        self._watts = Gauge("un0_power_watts", "Mean power in the newest interval.", _LABELS[1:])

    def add(self, rows: Iterable[EnergyRow]) -> None:
        """Count these rows. The rows of an interval come together."""
        for row in rows:
            interval = row.interval
            device = {"zone": interval.device.zone, "hw_type": interval.device.hw_type}
            labels = {"bucket": row.bucket, "quality": interval.quality, **device}
            if row.energy_mj:
                self._joules.inc(row.energy_mj / 1e3, labels)
            if row.images:
                self._images.inc(row.images, labels)
            if interval.energy_mj is not None and interval.duration_ns:
                watts = interval.energy_mj * 1e6 / interval.duration_ns
                self._watts.set(watts, {"quality": interval.quality, **device})
