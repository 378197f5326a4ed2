"""A source that is believed only while its readings are possible (``plausibility.py``)."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from cluster.ledger.foreign import Watcher
from cluster.ledger.reading import Device, Reading, missing
from cluster.metering.missing import MissingSource
from cluster.metering.plausibility import PATIENCE_S, Limits, Plausibility
from cluster.metering.source import Refused, Source

logger = logging.getLogger(__name__)
BusySeconds = Callable[[], float | None]
Wait = Callable[[float], object]
FIX = (
    "compare with another tool (turbostat, nvidia-smi); reload the driver or reboot; in a virtual "
    "machine meter the host instead"
)
PROVE_S = 0.25  # a counter that moves too fast shows it within that time
LOOK_EVERY_S = 0.005


class Guarded:
    """Reads ``source`` until that proves impossible, then an estimate, in epochs of their own.

    busy_s: for how long the device's units have worked so far; None: unknown. Never raises.
    instead: opens what takes over; may raise Refused, and readings are missing from then on.
    """

    def __init__(
        self,
        source: Source,
        limits: Limits,
        busy_s: BusySeconds = lambda: None,
        instead: Callable[[], Source] | None = None,
    ) -> None:
        self._source = source
        self._busy_s = busy_s
        self._open_instead = instead
        self._plausibility = Plausibility(limits)
        self._lock = threading.Lock()
        self._instead: Source | None = None
        self._epoch = 0  # to add to the source's own
        self._closed = False
        self.refused: Refused | None = None

    @property
    def device(self) -> Device:
        return self._source.device

    @property
    def provider(self) -> str:
        """Where the joules come from now."""
        return self._source.provider if self._instead is None else self._instead.provider

    @property
    def guarded(self) -> str:
        """The provider that is guarded, in use or refused."""
        return self._source.provider

    def read(self) -> Reading:
        with self._lock:
            if self._instead is not None and self.refused is not None:
                return self._read_instead(self._instead, self.refused.reason)
            reading = self._source.read()
            here = replace(reading, epoch=reading.epoch + self._epoch)
            if reading.energy_mj is None or reading.quality == "estimated":
                return here
            verdict = self._plausibility.judge(reading, self._busy_s())
            if verdict.kind == "ok":
                return here
            if verdict.kind == "wait":
                return missing(here.at_ns, verdict.reason, here.epoch)
            self._epoch += 1
            if verdict.kind == "broken":
                return replace(here, epoch=here.epoch + 1)
            self._refuse(Refused(verdict.reason, FIX))
            self._epoch = here.epoch + 2
            return missing(here.at_ns, verdict.reason, here.epoch + 1)

    def foreign_at_work(self, ours: Collection[int]) -> bool | None:
        """See ``Watcher``; None if the source is none."""
        return self._source.foreign_at_work(ours) if isinstance(self._source, Watcher) else None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._source.close()
            if self._instead is not None:
                self._instead.close()

    def _refuse(self, refused: Refused) -> None:
        self.refused = refused
        logger.warning("%s: %s; it is not read any more", self.device.hw_name, refused.reason)
        try:
            if self._open_instead is None:
                raise Refused(refused.reason)
            self._instead = self._open_instead()
        except Refused as no_estimate:
            self._instead = MissingSource(self.device, no_estimate.reason)
        if self._closed:
            self._instead.close()

    def _read_instead(self, instead: Source, why: str) -> Reading:
        reading = instead.read()
        method = reading.method if why in reading.method else f"{reading.method}, since {why}"
        return replace(reading, epoch=reading.epoch + self._epoch, method=method)


def prove(sources: Sequence[Guarded], wait: Wait = time.sleep) -> list[Refused | None]:
    """Watch until every source has gone on, or been refused; why it was, in their order.

    Takes ``PROVE_S``, and ``PATIENCE_S`` if one stands still. wait: passes seconds on their clock.
    """
    first = [source.read() for source in sources]
    waiting = set(range(len(sources)))
    unread: dict[int, Refused] = {}
    while waiting:
        wait(LOOK_EVERY_S)
        for i in sorted(waiting):
            reading = sources[i].read()
            elapsed_s = (reading.at_ns - first[i].at_ns) / 1e9
            went_on = reading.energy_mj is not None and reading.energy_mj != first[i].energy_mj
            if elapsed_s > 2 * PATIENCE_S and not went_on:
                unread[i] = Refused(f"{sources[i].guarded} does not answer: {reading.method}")
            if (went_on and elapsed_s >= PROVE_S) or sources[i].refused or i in unread:
                waiting.remove(i)
    return [source.refused or unread.get(i) for i, source in enumerate(sources)]
