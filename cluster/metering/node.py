"""The meter of one node: reads all of its devices, and writes the node's energy log.

Replicas report when they begin and end to use a device, on the host's monotonic clock, and the
outcomes of their attempts. Free of Ray; the actor around it is
``cluster.actors.node_meter``.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from cluster.clock import monotonic_ns
from cluster.energy import sum_energy
from cluster.hardware.proc import CpuTimes
from cluster.hardware.proc import cpu_times as machine_cpu_times
from cluster.ledger.foreign import ForeignUses, Watcher
from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Device, missing
from cluster.ledger.sink import RowSink
from cluster.ledger.usage import EnergyRow, Outcome, Use, Work
from cluster.metering.replay_node import ReplayNode
from cluster.metering.source import ClockNs, Source
from cluster.metering.tenant import Admitted, Tenant, gpu_source, host_sources
from cluster.types import MISSING_ENERGY, Energy

logger = logging.getLogger(__name__)
CUT_S = 10.0  # how often the CPU time behind a long attempt is looked at
GRACE_S = 2 * CUT_S  # so nothing is charged before that
MIN_SHARE = 1e-6  # CPU time ticks coarsely: a short slice may seem to have used none
_LOST_AT_MOST = 256  # replicas of which it is known what they died at


class NodeMeter:
    """Ledgers of a node's devices. Thread-safe.

    The CPUs are metered from the start, a GPU from when its first tenant is admitted. The
    energy of an attempt is that of its own device: the GPU it ran on, else the CPUs. What its
    host spent beside the GPU is in the log, in rows of their own zone.

    While replicas work, their CPUs' energy is divided by CPU time between them and everyone else
    on the machine, who is ``foreign``; idle power is thus part of what the work costs. While none
    works it is ``idle``. A GPU is ``foreign`` while none of ours works there, but others do.

    first_epoch: of all devices; greater than any that this host's earlier logs used.
    open_ends: where this host's log broke off, by hw_id (``energy_reader.open_ends``): the time
        since then becomes a gap.
    """

    def __init__(
        self,
        log: RowSink,
        first_epoch: int,
        open_ends: Mapping[str, datetime] | None = None,
        *,
        hosts: Callable[[], Sequence[Source]] = host_sources,
        gpu: Callable[[Tenant], Source] = gpu_source,
        cpu_times: Callable[[Sequence[int]], CpuTimes] | None = None,
        clock_ns: ClockNs = monotonic_ns,
    ) -> None:
        self._log = log
        self._first_epoch = first_epoch
        self._open_ends = dict(open_ends or {})
        self._gpu = gpu
        opened = hosts()
        own = [source.cpu_times for source in opened if isinstance(source, ReplayNode)]
        self._cpu_times = cpu_times or (own[0] if own else machine_cpu_times)
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._running: dict[str, Use] = {}  # by attempt, as announced
        self._cut_ns = clock_ns()
        self._cpu = self._cpu_times(())
        self._seen_s: dict[int, float] = {}  # CPU seconds of tenants, when last alive
        self._sources: dict[str, Source] = {}
        self._ledgers: dict[str, Ledger] = {}
        self._foreign: defaultdict[str, ForeignUses] = defaultdict(ForeignUses)  # by hw_id
        self._tenants: dict[str, Admitted] = {}
        self._died_at: dict[str, Work] = {}  # by replica
        self._closed = False
        self._hosts = [self._open(source) for source in opened]

    def admit(self, tenant: Tenant) -> Device:
        """Meter a replica; the device whose energy its images will carry.

        Raises LookupError for a tenant of CPUs that have no meter of their own.
        """
        with self._lock:
            if tenant.gpu_uuid is None and not self._hosts:
                raise LookupError("the CPUs' energy is metered with their GPU's module")
            hw_id = None
            if tenant.gpu_uuid is not None:
                hw_id = self._open(self._gpu(tenant))
            self._cut()
            alive = self._look(tenant.pid)
            self._cpu = self._last_seen(alive)
            self._tenants[tenant.replica_id] = Admitted(
                tenant, hw_id, tenant.pid in alive.process_s
            )
            return self._sources[hw_id or self._hosts[0]].device

    def provider(self, device: Device) -> str:
        """Where the device's joules come from, for example ``nvml-counter``."""
        return self._sources[device.hw_id].provider

    def begin(self, use: Use) -> None:
        """The replica begins to use its devices; ``use.end_ns`` is None.

        Raises LookupError if it was not admitted, as ``end`` does.
        """
        with self._lock:
            gpu = self._gpu_of(use)
            self._cut()
            self._running[use.attempt_id] = use
            if gpu is not None:
                self._ledgers[gpu].report(use)

    def end(self, use: Use) -> Energy:
        """The use has ended; returns its attempt's energy on its own device."""
        with self._lock:
            gpu = self._gpu_of(use)
            if gpu is not None:
                self._ledgers[gpu].report(use)
                self._read([gpu])
            self._cut(ended=use)
            return self._energy_on(self._hosts if gpu is None else [gpu], use.attempt_id)

    def host_energy(self, attempt_id: str) -> Energy | None:
        """What an attempt that has ended took of the CPUs: on a GPU, beside its own energy. None
        where the CPUs have no meter of their own."""
        with self._lock:
            return self._energy_on(self._hosts, attempt_id) if self._hosts else None

    def _energy_on(self, hw_ids: Sequence[str], attempt_id: str) -> Energy:
        known = [self._ledgers[hw_id].attempt_energy(attempt_id) for hw_id in hw_ids]
        return sum_energy(energy or MISSING_ENERGY for energy in known)

    def at_work(self, replica_id: str) -> Work | None:
        """What the replica uses its devices for, or did so when it died; None: nothing, as far as
        is known."""
        with self._lock:
            for use in self._running.values():
                if use.replica_id == replica_id:
                    return use.work
            return self._died_at.get(replica_id)

    def settle(self, attempt_id: str, outcome: Outcome) -> None:
        """Set an attempt's outcome: the energy of a lost one is ``wasted``."""
        with self._lock:
            for ledger in self._ledgers.values():
                ledger.settle(attempt_id, outcome)

    def lose(self, replica_id: str) -> None:
        """The replica has ended: free its slot, and count its undecided attempts as lost."""
        with self._lock:
            self._lose(replica_id)

    def leave(self, run_id: str) -> None:
        """The run has ended, and with it its replicas: their undecided attempts are lost."""
        with self._lock:
            for replica_id in [
                r for r, admitted in self._tenants.items() if admitted.tenant.run_id == run_id
            ]:
                self._lose(replica_id)

    @property
    def closed(self) -> bool:
        return self._closed

    @property
    def deserted(self) -> bool:
        """Whether no replica has a slot."""
        return not self._tenants

    def sample(self) -> list[EnergyRow]:
        """Take a reading of every device, and write the log when it is due. Call it each second.

        Returns the rows that have become final.
        """
        with self._lock:
            if self._closed:
                return []
            self._lose_the_dead()
            for hw_id in self._gpus():
                self._look_for_foreign(hw_id)
            self._read(self._gpus())
            if self._clock_ns() - self._cut_ns >= CUT_S * 1e9:
                self._cut()
            rows = [row for ledger in self._ledgers.values() for row in ledger.drain()]
            self._log.add(rows)
        if self._log.due:
            self._log.flush()
        return rows

    def flush(self) -> bool:
        """Write the rows that are final now; False if the store did not accept them."""
        return self._log.flush()

    def close(self) -> bool:
        """Read once more, write the rest, release the devices; False if it could not be written.

        Call it again to try again.
        """
        with self._lock:
            if not self._closed:
                self._closed = True
                self._cut()
                self._read(self._gpus())
                self._log.add(row for ledger in self._ledgers.values() for row in ledger.close())
                for source in self._sources.values():
                    source.close()
        return self._log.close()

    def _lose(self, replica_id: str) -> None:
        if replica_id not in self._tenants:
            return
        self._cut()
        for use in [use for use in self._running.values() if use.replica_id == replica_id]:
            del self._running[use.attempt_id]
            self._died_at[replica_id] = use.work
            if len(self._died_at) > _LOST_AT_MOST:
                del self._died_at[next(iter(self._died_at))]
        for ledger in self._ledgers.values():
            ledger.lose(replica_id, self._clock_ns())
        del self._tenants[replica_id]  # what it said in its last moments comes too late

    def _lose_the_dead(self) -> None:
        """Free the slots of processes that have ended: a run that was killed does not report it."""
        alive = self._look().process_s
        for replica_id, admitted in list(self._tenants.items()):
            if admitted.watched and admitted.tenant.pid not in alive:
                self._lose(replica_id)

    def _look_for_foreign(self, hw_id: str) -> None:
        """Tell the GPU's ledger whether other processes than ours work on it."""
        source = self._sources[hw_id]
        if isinstance(source, Watcher):
            here = [
                admitted.tenant.pid for admitted in self._tenants.values() if admitted.gpu == hw_id
            ]
            use = self._foreign[hw_id].seen(source.foreign_at_work(here), self._clock_ns())
            if use is not None:
                self._ledgers[hw_id].report(use)

    def _gpu_of(self, use: Use) -> str | None:
        """The hw_id of the GPU that the user draws on; None for the CPUs."""
        if use.replica_id not in self._tenants:
            raise LookupError(
                f"replica {use.replica_id!r} is not known to this node's meter, which may "
                "have been restarted: admit it again"
            )
        return self._tenants[use.replica_id].gpu

    def _gpus(self) -> list[str]:
        return [hw_id for hw_id in self._ledgers if hw_id not in self._hosts]

    def _open(self, source: Source) -> str:
        """Begin the ledger of a source's device, unless there is one; its hw_id."""
        hw_id = source.device.hw_id
        if hw_id in self._ledgers:
            source.close()
            return hw_id
        self._sources[hw_id] = source
        ledger = self._ledgers[hw_id] = Ledger(
            source.device, first_epoch=self._first_epoch, grace_s=GRACE_S
        )
        if (broke_off := self._open_ends.pop(hw_id, None)) is not None:
            since_ns = self._log.origin.anchor.monotonic_at(broke_off)
            ledger.read(missing(since_ns, "the node's meter was not there"))
        ledger.read(source.read())
        return hw_id

    def _cut(self, ended: Use | None = None) -> None:
        """Read the CPUs, and charge the time since the last cut to those who used it.

        ended: an attempt that is over with this cut; its images count on its own device.
        """
        now_ns, cpu = self._clock_ns(), self._last_seen(self._look())
        shares = self._cpu_shares(cpu)
        for attempt_id, use in self._running.items():
            over = ended is not None and ended.attempt_id == attempt_id
            if now_ns == self._cut_ns and not over:
                continue
            gpu = self._tenants[use.replica_id].gpu
            slice_ = replace(
                use,
                start_ns=self._cut_ns,
                end_ns=now_ns,
                gpu_fraction=shares[use.replica_id],
                images=ended.images if over and ended is not None and gpu is None else None,
            )
            for number, hw_id in enumerate(self._hosts):
                self._ledgers[hw_id].report(replace(slice_, images=None) if number else slice_)
        ours = sum(shares[use.replica_id] for use in self._running.values())
        if 0 < ours < 1 - MIN_SHARE and now_ns > self._cut_ns:
            others = Use(self._cut_ns, now_ns, "foreign", f"foreign-{self._cut_ns}")
            for hw_id in self._hosts:
                self._ledgers[hw_id].report(others)
        if ended is not None:
            self._running.pop(ended.attempt_id, None)
        self._read(self._hosts)
        self._cut_ns, self._cpu = now_ns, cpu

    def _cpu_shares(self, cpu: CpuTimes) -> dict[str, float]:
        """Of the machine's busy CPU time since the last cut, each working replica's part, for
        each of its attempts."""
        working = Counter(use.replica_id for use in self._running.values())
        own_s = {
            replica_id: cpu.since(self._cpu, self._tenants[replica_id].tenant.pid)
            for replica_id in working
        }
        busy_s = max(cpu.machine_s - self._cpu.machine_s, sum(own_s.values()), 1e-9)
        return {
            replica_id: min(1.0, max(own_s[replica_id] / busy_s / attempts, MIN_SHARE))
            for replica_id, attempts in working.items()
        }

    def _look(self, *newcomers: int) -> CpuTimes:
        """CPU times of the replicas' processes that are alive."""
        pids = [*(admitted.tenant.pid for admitted in self._tenants.values()), *newcomers]
        cpu = self._cpu_times(pids)
        seen_s = self._seen_s | dict(cpu.process_s)
        self._seen_s = {pid: seen_s[pid] for pid in pids if pid in seen_s}
        return cpu

    def _last_seen(self, cpu: CpuTimes) -> CpuTimes:
        """The same with processes that have ended, as last seen: they are charged too."""
        return CpuTimes(cpu.machine_s, self._seen_s)

    def _read(self, hw_ids: Sequence[str]) -> None:
        for hw_id in hw_ids:
            self._ledgers[hw_id].read(self._sources[hw_id].read())
