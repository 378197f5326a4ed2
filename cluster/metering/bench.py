"""A node's meter for a process that measures itself, outside any fleet."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

from cluster.clock import monotonic_ns
from cluster.errors import UserError
from cluster.hardware.identify import host_name
from cluster.hardware.proc import cpu_times
from cluster.ledger.sink import Discard
from cluster.ledger.usage import Use
from cluster.metering.node import NodeMeter
from cluster.metering.source import Source
from cluster.metering.tenant import Tenant, gpu_source, host_sources, tenant_here
from cluster.metering.ticker import Ticker
from cluster.types import MISSING_ENERGY, Energy, EnergyQuality
from un0.machine import machine_cpus

IDLE_BUSY = 0.1  # of all CPU time: with more, a machine is not idle


@dataclass(frozen=True)
class Idle:
    """Power while nothing runs, and how it is known."""

    power_w: float | None
    quality: EnergyQuality


@dataclass
class Metered:
    """The energy of a window; set when it ends. host: of one on a GPU, what the CPUs beside it took
    for this process; None where they have no meter of their own."""

    energy: Energy = MISSING_ENERGY
    duration_s: float = 0.0
    host: Energy | None = None


class BenchMeter:
    """Charges windows of this process as the fleet's meter would charge a replica."""

    def __init__(self, meter: NodeMeter, tenant: Tenant) -> None:
        self._meter, self._tenant = meter, tenant
        self.device = meter.admit(tenant)
        self.provider = meter.provider(self.device)

    @contextmanager
    def window(self) -> Iterator[Metered]:
        """Meter the ``with`` block."""
        metered = Metered()
        use = Use(monotonic_ns(), None, "overhead", uuid.uuid4().hex, self._tenant.replica_id)
        self._meter.begin(use)
        try:
            yield metered
        finally:
            use = replace(use, end_ns=monotonic_ns())
            metered.energy = self._meter.end(use)
            if self._tenant.gpu_uuid is not None:
                metered.host = self._meter.host_energy(use.attempt_id)
            metered.duration_s = ((use.end_ns or 0) - use.start_ns) / 1e9

    def idle(self, watch_s: float, cpu_share: float) -> Idle:
        """The device's idle power over some seconds; of CPUs, the replica's share of it.

        Unknown where other processes keep the CPUs busy meanwhile: it would be theirs.
        """
        on_gpu = self._tenant.gpu_uuid is not None
        sources = [gpu_source(self._tenant)] if on_gpu else host_sources()
        try:
            busy_s = cpu_times(()).machine_s
            found = _power(sources, watch_s, 1.0 if on_gpu else cpu_share)
            busy_s = cpu_times(()).machine_s - busy_s
            others = not on_gpu and busy_s > IDLE_BUSY * watch_s * machine_cpus()
            return Idle(None, "missing") if others else found
        finally:
            for source in sources:
                source.close()


@contextmanager
def bench_meter(device: str) -> Iterator[BenchMeter]:
    """A meter of the torch device ``cpu`` or ``cuda``. Nothing of it gets into a store's energy
    log, which the fleet's own meter may be writing for the same devices.

    Raises UserError for CPUs that have no meter of their own.
    """
    with ExitStack() as stack:
        meter = NodeMeter(Discard(host_name()), 0)
        stack.callback(meter.close)
        try:
            bench = BenchMeter(meter, tenant_here("bench", device))
        except LookupError as error:
            raise UserError(f"this machine's CPUs cannot be measured alone: {error}") from None
        stack.callback(Ticker(meter.sample, 1.0, "sample").close)
        yield bench


def _power(sources: Sequence[Source], watch_s: float, share: float) -> Idle:
    before = [source.read() for source in sources]
    time.sleep(watch_s)
    after = [source.read() for source in sources]
    power_w = 0.0
    for first, last in zip(before, after, strict=True):
        if first.energy_mj is None or last.energy_mj is None or first.epoch != last.epoch:
            return Idle(None, "missing")
        power_w += (last.energy_mj - first.energy_mj) * 1e6 / (last.at_ns - first.at_ns)
    return Idle(share * power_w, after[-1].quality) if sources else Idle(None, "missing")
