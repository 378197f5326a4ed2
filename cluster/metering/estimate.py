"""Estimates with bounds, for devices that expose no counter; watts by ``hardware.datasheets``."""

from __future__ import annotations

import threading
from collections.abc import Callable

from cluster.clock import monotonic_ns
from cluster.hardware.datasheets import (
    CPU_HIGH,
    CPU_LOW,
    CPU_NOMINAL,
    GPU_HIGH,
    GPU_LOW,
    GPU_NOMINAL,
)
from cluster.hardware.identify import cpu_name
from cluster.hardware.proc import machine_cpu_s
from cluster.ledger.reading import Device, Reading, missing
from cluster.metering.source import ClockNs, Refused

CpuSeconds = Callable[[], tuple[float, float]]

CPU_METHOD = "cpu time x watts per hardware thread (CCF 2023)"
GPU_METHOD = "power limit x time x load profile (Teads 2021)"


class CpuEstimate:
    """Energy of the machine's CPUs from the time they were busy and idle.

    device: None for all of them; else the one whose times ``cpu_s`` returns. Raises Refused if the
    system does not report CPU times.
    """

    provider = "cpu-estimate"

    def __init__(
        self,
        cpu_s: CpuSeconds = machine_cpu_s,
        clock_ns: ClockNs = monotonic_ns,
        device: Device | None = None,
    ) -> None:
        self.device = device or Device("cpu", "cpu", cpu_name(), "host")
        self._cpu_s = cpu_s
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._closed = False
        try:
            self._start = self._last = cpu_s()
        except (OSError, ValueError) as error:
            raise Refused(f"the system does not tell its CPU times: {error}") from None

    def read(self) -> Reading:
        with self._lock:
            at_ns = self._clock_ns()
            if self._closed:
                return missing(at_ns, "the meter is closed")
            try:
                busy_s, idle_s = self._cpu_s()
            except (OSError, ValueError) as error:
                return missing(at_ns, f"CPU times cannot be read: {error}")
            # Linux lets the time spent waiting for I/O go back a little; energy does not.
            self._last = max(busy_s, self._last[0]), max(idle_s, self._last[1])
            spent = self._last[0] - self._start[0], self._last[1] - self._start[1]
        return Reading(
            at_ns,
            CPU_NOMINAL.energy_mj(*spent),
            "estimated",
            CPU_METHOD,
            low_mj=CPU_LOW.energy_mj(*spent),
            high_mj=CPU_HIGH.energy_mj(*spent),
        )

    def close(self) -> None:
        self._closed = True


class GpuEstimate:
    """GPU energy from its power limit and time alone. Raises Refused if the limit is not known."""

    provider = "gpu-estimate"

    def __init__(self, device: Device, clock_ns: ClockNs = monotonic_ns) -> None:
        if device.power_limit_mw is None:
            raise Refused(
                f"neither NVML nor the built-in table knows the power limit of {device.hw_name}"
            )
        self.device = device
        self._limit_mw = device.power_limit_mw
        self._clock_ns = clock_ns
        self._start_ns = clock_ns()
        self._closed = False

    def read(self) -> Reading:
        at_ns = self._clock_ns()
        if self._closed:
            return missing(at_ns, "the meter is closed")
        full_mj = self._limit_mw * (at_ns - self._start_ns) / 1e9
        return Reading(
            at_ns,
            int(full_mj * GPU_NOMINAL),
            "estimated",
            GPU_METHOD,
            low_mj=int(full_mj * GPU_LOW),
            high_mj=int(full_mj * GPU_HIGH),
        )

    def close(self) -> None:
        self._closed = True
