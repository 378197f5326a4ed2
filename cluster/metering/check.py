"""The state of this machine's meters, device by device, for ``un0 doctor``."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.health import Status
from cluster.metering.choice import Choice, MachineMeters, Refusal
from cluster.metering.select import choose_machine
from cluster.types import EnergyQuality


@dataclass(frozen=True)
class MeterCheck:
    """One device's meter. status: ok: measured; warn: estimated or left out; fail: no energy known.

    provider: where its readings come from. reason: why no better one; empty if status is ok. fix:
    what the user can do about it, if anything.
    """

    device: str
    provider: str
    quality: EnergyQuality
    status: Status
    reason: str
    fix: str | None


def check_meters() -> list[MeterCheck]:
    """Choose and check the meters of this machine; takes up to a few seconds."""
    meters = choose_machine()
    try:
        return checks_of(meters)
    finally:
        meters.close()


def checks_of(meters: MachineMeters) -> list[MeterCheck]:
    """The chosen meters, then the devices that were left out."""
    return [
        *(_chosen(choice) for choice in meters.choices),
        *(_left_out(note.device, note) for note in meters.notes if note.device is not None),
    ]


def _chosen(choice: Choice) -> MeterCheck:
    quality = choice.source.read().quality
    status: Status = "ok"
    if not quality.startswith("measured"):
        status = "fail" if quality == "missing" else "warn"
    refusals = choice.refusals
    return MeterCheck(
        choice.source.device.hw_id,
        choice.source.provider,
        quality,
        status,
        "; ".join(f"{refusal.provider}: {refusal.reason}" for refusal in refusals),
        next((refusal.fix for refusal in refusals if refusal.fix), None),
    )


def _left_out(device: str, note: Refusal) -> MeterCheck:
    status: Status = "ok" if note.harmless else "warn"
    return MeterCheck(device, note.provider, "missing", status, note.reason, note.fix)
