"""Energy from one reading of a source to the next."""

from __future__ import annotations

from fractions import Fraction

from cluster.ledger.reading import Reading
from cluster.metering.source import Source
from cluster.types import MISSING_ENERGY, Energy


class Laps:
    """Each lap closes one interval of a source's energy and opens the next; of a shared board,
    the device's share."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._last = source.read()

    def lap(self) -> Energy:
        last, self._last = self._last, self._source.read()
        return between(last, self._last, self._source.device.share)

    def close(self) -> None:
        self._source.close()


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

    return Energy(
        energy_mj=span(first.energy_mj, last.energy_mj),
        low_mj=span(first.low_mj, last.low_mj),
        high_mj=span(first.high_mj, last.high_mj),
        quality=last.quality,
        method=last.method,
    )
