"""Energy rows without a device: a ledger is fed, and its rows are what a node meter would log."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from cluster.clock import Anchor
from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Device, Reading
from cluster.ledger.usage import EnergyRow, Use, Work
from cluster.ledger.writer import EnergyLog
from cluster.storage.object_store import ObjectStore

S = 1_000_000_000
START = datetime(2026, 3, 1, 12, tzinfo=UTC)
ANCHOR = Anchor(START, 0)  # monotonic zero is noon
GPU = Device("GPU-1", "gpu", "test gpu", "gpu", driver_version="570.1", power_limit_mw=700_000)


def work(job_id: str = "job", shard: int = 0) -> Work:
    return Work(job_id, shard, "rev-1", 16, 32, 32, "fp32")


def attempts(
    count: int,
    *,
    start_s: int = 0,
    seconds: int = 10,
    joules: int = 1000,
    lost: Iterable[int] = (),
    unread: Iterable[int] = (),
    device: Device = GPU,
    job_id: str = "job",
) -> list[EnergyRow]:
    """Rows of attempts at shards 0..count-1 in turn, ``joules`` and 64 images each.

    lost: attempts that did not win. unread: attempts at whose end the counter starts anew.
    """
    ledger = Ledger(device, first_epoch=start_s)
    mj, epoch = 0, 0
    ledger.read(Reading(start_s * S, mj, "measured_counter", "nvml", epoch))
    for shard in range(count):
        begin_s = start_s + shard * seconds
        end_s = begin_s + seconds
        name = f"{job_id}-{begin_s}"
        ledger.report(Use(begin_s * S, end_s * S, "job", name, "r", work(job_id, shard), 64, 32))
        ledger.settle(name, "lost" if shard in lost else "won")
        mj, epoch = (0, epoch + 1) if shard in unread else (mj + 1000 * joules, epoch)
        ledger.read(Reading(end_s * S, mj, "measured_counter", "nvml", epoch))
    return ledger.close()


def log_of(store: ObjectStore, host: str = "node-1", **changes: Any) -> EnergyLog:
    """A host's log, whose monotonic clock began at ``START``."""
    settings: dict[str, Any] = {"cluster_id": "c", "anchor": ANCHOR}
    return EnergyLog(store, host, **settings | changes)
