"""From readings to intervals: each reading closes one and opens the next. Pure."""

from __future__ import annotations

from cluster.ledger.reading import Device, Reading
from cluster.ledger.usage import Interval

ROUNDING_MJ = 2  # an estimate and its bounds are each rounded by themselves


class Timeline:
    """The intervals of one device, without holes or overlaps.

    An interval without a trustworthy total is a gap, and ends an epoch: the counter was reset or
    replaced, went backwards, or could not be read for longer than outage_ns. After a shorter
    outage the same counter closes one long interval, marked ``outage``.

    first_epoch: number of the first epoch; choose one that no earlier run of this meter used.
    """

    def __init__(self, device: Device, first_epoch: int, outage_ns: int) -> None:
        self._device = device
        self._epoch = first_epoch
        self._outage_ns = outage_ns
        self._opening: Reading | None = None
        self._silent: Reading | None = None  # the newest reading since, if it closed nothing
        self._outage = False

    @property
    def newest_ns(self) -> int | None:
        """The time of the newest reading."""
        newest = self._silent or self._opening
        return newest.at_ns if newest else None

    def read(self, reading: Reading) -> Interval | None:
        """The interval that the reading closes, if any. Readings out of order close nothing."""
        if self._opening is None:
            self._opening = reading
            return None
        newest_ns = self.newest_ns
        if newest_ns is not None and reading.at_ns <= newest_ns:
            return None
        if _same_counter(self._opening, reading):
            interval = self._known(self._opening, reading)
            if interval is None:  # so soon that rounding shows: the next reading closes it
                return self._wait(reading)
            return self._close(reading, interval)
        if reading.energy_mj is None and self._opening.energy_mj is not None:
            self._outage = True
            return self._wait(reading)
        return self._gap(reading)

    def close(self) -> Interval | None:
        """What is left open becomes a gap, up to the newest reading."""
        return self._gap(self._silent) if self._silent else None

    def _wait(self, reading: Reading) -> Interval | None:
        assert self._opening is not None
        if reading.at_ns - self._opening.at_ns > self._outage_ns:
            return self._gap(reading)
        self._silent = reading
        return None

    def _close(self, reading: Reading, interval: Interval) -> Interval:
        self._opening, self._silent, self._outage = reading, None, False
        return interval

    def _gap(self, reading: Reading) -> Interval:
        opening = self._opening
        assert opening is not None
        unread = next((r for r in (opening, reading) if r.energy_mj is None), None)
        why = unread.method if unread else f"{reading.method}: the counter starts anew"
        epoch = self._epoch
        if reading.energy_mj is not None:
            self._epoch += 1
        return self._close(
            reading,
            Interval(
                self._device, epoch, opening.at_ns, reading.at_ns,
                None, None, None, "missing", why, None,
            ),
        )  # fmt: skip

    def _known(self, opening: Reading, reading: Reading) -> Interval | None:
        energy_mj = self._step(opening.energy_mj, reading.energy_mj)
        low_mj = self._step(opening.low_mj, reading.low_mj)
        high_mj = self._step(opening.high_mj, reading.high_mj)
        assert energy_mj is not None
        if (low_mj or 0) > energy_mj or (high_mj is not None and high_mj < energy_mj):
            return None
        return Interval(
            self._device, self._epoch, opening.at_ns, reading.at_ns,
            energy_mj, low_mj, high_mj, reading.quality, reading.method,
            _difference(opening.counter_updates, reading.counter_updates), self._outage,
        )  # fmt: skip

    def _step(self, before_mj: int | None, after_mj: int | None) -> int | None:
        """Millijoules in between, of this device's share. Cut from the totals, so it adds up."""
        share = self._device.share
        if before_mj is None or after_mj is None:
            return None
        return int(after_mj * share) - int(before_mj * share)


def _same_counter(opening: Reading, reading: Reading) -> bool:
    """Whether the difference of the two means anything."""
    if (opening.epoch, opening.method, opening.quality) != (
        (reading.epoch, reading.method, reading.quality)
    ):
        return False
    energy_mj = _difference(opening.energy_mj, reading.energy_mj)
    low_mj = _difference(opening.low_mj, reading.low_mj)
    high_mj = _difference(opening.high_mj, reading.high_mj)
    if energy_mj is None or (opening.low_mj is None) != (reading.low_mj is None):
        return False
    if (opening.high_mj is None) != (reading.high_mj is None):
        return False
    low_mj = energy_mj if low_mj is None else low_mj
    high_mj = energy_mj if high_mj is None else high_mj
    return (
        min(low_mj, energy_mj) >= 0
        and low_mj <= energy_mj + ROUNDING_MJ
        and energy_mj <= high_mj + ROUNDING_MJ
    )


def _difference(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before
