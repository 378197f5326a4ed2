"""Feeding a ledger in seconds and millijoules, and showing what it made of it."""

from __future__ import annotations

from typing import Any

from cluster.ledger.ledger import Ledger
from cluster.ledger.reading import Device, Reading
from cluster.ledger.usage import EnergyRow, Use, Work
from cluster.types import Energy

S = 1_000_000_000
GPU = Device("GPU-1", "gpu", "test gpu", "gpu")
WORK = Work("job", 3, "rev", 16, 32, 32, "fp32")


def use(start_s: float, end_s: float | None, attempt_id: str = "a", **changes: Any) -> Use:
    settings: dict[str, Any] = {"bucket": "job", "replica_id": "r", "work": WORK}
    end_ns = None if end_s is None else int(end_s * S)
    return Use(int(start_s * S), end_ns, attempt_id=attempt_id, **settings | changes)


def read(ledger: Ledger, *said: tuple[float, int | None], epoch: int = 0) -> None:
    for at_s, mj in said:
        known = ("measured_counter", "nvml") if mj is not None else ("missing", "unplugged")
        ledger.read(Reading(int(at_s * S), mj, *known, epoch))  # type: ignore[arg-type]


def shown(rows: list[EnergyRow]) -> list[tuple[str, str | None, float, float, int | None]]:
    """(bucket, attempt, start, end, energy) of each row, in seconds and millijoules."""
    return [
        (r.bucket, r.attempt_id, r.interval.start_ns / S, r.interval.end_ns / S, r.energy_mj)
        for r in rows
    ]


def measured(mj: int) -> Energy:
    return Energy(energy_mj=mj, quality="measured_counter", method="nvml")
