"""The two ways to get a GPU's energy from NVML: its counter, and its power over time."""

from __future__ import annotations

import threading
from abc import abstractmethod
from collections.abc import Collection

import pynvml

from cluster.clock import monotonic_ns
from cluster.ledger.foreign import foreign_among
from cluster.ledger.reading import Reading, missing
from cluster.metering.counter import CounterTrack
from cluster.metering.nvml import NvmlDevice, nvml_refusals
from cluster.metering.source import ClockNs
from cluster.metering.ticker import Ticker

SAMPLE_S = 0.1
MAX_GAP_NS = 2_000_000_000
TWICE_PJ_PER_MJ = 2 * 10**9


class _NvmlSource:
    """What both have in common: the device, one reader at a time, failures, and the end."""

    def __init__(self, uuid: str, clock_ns: ClockNs, what: str) -> None:
        self._nvml = NvmlDevice(uuid)
        self.device = self._nvml.device
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._closed = False
        self._epoch = 0
        self._looked_us = 0
        self._busy_s, self._busy_ns = 0.0, clock_ns()
        try:
            with nvml_refusals(f"the {what} of this {self.device.hw_name}"):
                self._value()
        except BaseException:
            self._nvml.close()
            raise

    @abstractmethod
    def _value(self) -> Reading:
        """A reading; raises NVMLError."""

    def read(self) -> Reading:
        with self._lock:
            if self._closed:
                return missing(self._clock_ns(), "the meter is closed", self._epoch)
            try:
                reading = self._value()
            except pynvml.NVMLError as error:
                return missing(self._clock_ns(), f"NVML: {error}", self._epoch)
            self._epoch = reading.epoch
            return reading

    def busy_s(self) -> float | None:
        """Busy seconds of the board so far, from sampled utilisation; None: unknown."""
        with self._lock:
            try:
                busy = 0.0 if self._closed else self._nvml.utilisation()
            except pynvml.NVMLError:
                return None
            now_ns = self._clock_ns()
            self._busy_s += busy * (now_ns - self._busy_ns) / 1e9
            self._busy_ns = now_ns
            return self._busy_s

    def foreign_at_work(self, ours: Collection[int]) -> bool | None:
        """See ``Watcher``. None on a MIG slice, and where the driver does not tell."""
        with self._lock:
            if self._closed or self.device.shared:
                return None
            try:
                first = not self._looked_us
                busy, self._looked_us = self._nvml.busy_since(self._looked_us)
                return None if first else foreign_among(self._nvml.processes(), busy, ours)
            except pynvml.NVMLError:
                return None

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self._nvml.close()


class NvmlCounter(_NvmlSource):
    """The energy counter of a GPU: since Volta, in millijoules, updated every 20 to 100 ms.

    Raises Refused if there is none.
    """

    provider = "nvml-counter"

    def __init__(self, uuid: str, clock_ns: ClockNs = monotonic_ns) -> None:
        self._track = CounterTrack("nvmlDeviceGetTotalEnergyConsumption")
        super().__init__(uuid, clock_ns, "energy counter")

    def _value(self) -> Reading:
        value_mj = self._nvml.energy_mj()
        return self._track.read(self._clock_ns(), value_mj)


class NvmlPower(_NvmlSource):
    """The power of a GPU, sampled and integrated by trapezoids, for boards without a counter.

    Boards that report the mean of the last second blur edges by as much. After more than two
    seconds without a sample a new epoch begins: nothing is integrated over the gap.
    period_s: of the sampling thread, or None to sample at readings only. Raises Refused if the
    GPU does not report its power.
    """

    provider = "nvml-power"

    def __init__(
        self,
        uuid: str,
        clock_ns: ClockNs = monotonic_ns,
        period_s: float | None = SAMPLE_S,
    ) -> None:
        self._twice_pj = self._samples = 0
        self._last: tuple[int, int] | None = None  # (ns, mW)
        super().__init__(uuid, clock_ns, "power")
        self._ticker = Ticker(self.read, period_s, f"power of {uuid}")

    def _value(self) -> Reading:
        at_ns, epoch = self._clock_ns(), self._epoch
        power_mw = self._nvml.power_mw()
        if self._last is not None:
            last_ns, last_mw = self._last
            if at_ns - last_ns > MAX_GAP_NS:
                self._twice_pj, self._samples, epoch = 0, 0, epoch + 1
            else:  # mW x ns are picojoules, so integers are exact
                self._twice_pj += (power_mw + last_mw) * (at_ns - last_ns)
                self._samples += 1
        self._last = at_ns, power_mw
        return Reading(
            at_ns,
            self._twice_pj // TWICE_PJ_PER_MJ,
            "measured_power",
            "NVML power integrated",
            epoch,
            counter_updates=self._samples,
        )

    def close(self) -> None:
        self._ticker.close()
        super().close()
