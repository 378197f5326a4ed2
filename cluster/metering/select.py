"""Choose the best provider for each device, and say why the better ones were refused.

GPU: NVML's counter, its power integrated, zeus, an estimate, missing.
CPU: RAPL, zeus, an estimate, missing; or what stands in for them (replay_node).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cluster.metering.estimate import CpuEstimate, GpuEstimate, design_power_mw
from cluster.metering.hardware import cpu_name
from cluster.metering.missing import MissingSource
from cluster.metering.nvml import NvmlDevice, list_gpus
from cluster.metering.nvml_sources import NvmlCounter, NvmlPower
from cluster.metering.rapl import POWERCAP, open_rapl
from cluster.metering.reading import Device, Refused, Source
from cluster.metering.replay_node import REPLAY_ENV, ReplayNode
from cluster.metering.zeus import PREFIX, ZeusSource, open_zeus, open_zeus_gpu, zeus_hardware


@dataclass(frozen=True)
class Refusal:
    """A better provider that cannot be had: which, why, and what the user may do about it."""

    provider: str
    reason: str
    mend: str | None = None


@dataclass(frozen=True)
class Choice:
    """The best source of one device, and the better ones that were refused, best first."""

    source: Source
    refused: tuple[Refusal, ...] = ()


@dataclass(frozen=True)
class MachineMeters:
    """The sources of a machine. ``notes``: devices that are not among them, and why."""

    choices: tuple[Choice, ...]
    notes: tuple[Refusal, ...] = ()

    def close(self) -> None:
        for choice in self.choices:
            choice.source.close()


def choose_gpu(uuid: str, name: str = "GPU") -> Choice:
    """The source of a GPU or MIG slice. ``name`` is used where no driver tells it."""

    def estimate() -> Source:
        return GpuEstimate(_gpu_device(uuid, name))

    providers: list[tuple[str, Callable[[], Source]]] = [
        (NvmlCounter.provider, lambda: NvmlCounter(uuid)),
        (NvmlPower.provider, lambda: NvmlPower(uuid)),
        (GpuEstimate.provider, estimate),
    ]
    if uuid.startswith(PREFIX):
        providers[:2] = [(ZeusSource.provider, lambda: open_zeus_gpu(uuid))]
    elif zeus_hardware() == "jetson":
        providers.insert(2, (ZeusSource.provider, lambda: open_zeus("jetson")[0]))
    return _first(providers, Device(uuid, "gpu", name, "gpu"))


def choose_cpu(powercap: Path = POWERCAP) -> tuple[Choice, ...]:
    """The sources of the machine's CPUs: every package and its memory, or one for them all.

    With ``UN0_METER_REPLAY`` the stand-in alone: missing rather than another's joules.
    """
    if replay := os.environ.get(REPLAY_ENV):
        stand_in = [(ReplayNode.provider, lambda: ReplayNode(Path(replay)))]
        return (_first(stand_in, Device("cpu", "cpu", cpu_name(), "host")),)
    try:
        return tuple(Choice(source) for source in open_rapl(powercap))
    except Refused as refused:
        refusal = Refusal("rapl", refused.reason, refused.mend)
    providers: list[tuple[str, Callable[[], Source]]] = [(CpuEstimate.provider, CpuEstimate)]
    if zeus_hardware() == "apple":
        providers.insert(0, (ZeusSource.provider, lambda: open_zeus("apple")[0]))
    choice = _first(providers, Device("cpu", "cpu", cpu_name(), "host"))
    return (replace(choice, refused=(refusal, *choice.refused)),)


def choose_machine(powercap: Path = POWERCAP) -> MachineMeters:
    """The sources of every device of this machine, none of whose zones overlap."""
    notes: list[Refusal] = []
    gpus: list[Choice] = []
    try:
        for found in list_gpus():
            if isinstance(found, Refused):
                notes.append(Refusal("nvml", found.reason, found.mend))
            else:
                gpus.append(choose_gpu(found))
    except Refused as refused:
        notes.append(Refusal("nvml", refused.reason, refused.mend))
        gpus += _zeus_gpus(notes)
    if any(choice.source.device.zone == "module" for choice in gpus):
        notes.append(Refusal("rapl", "the CPU is part of its GPU's module, and metered with it"))
        return MachineMeters(tuple(gpus), tuple(notes))
    return MachineMeters((*gpus, *choose_cpu(powercap)), tuple(notes))


def _zeus_gpus(notes: list[Refusal]) -> list[Choice]:
    """The GPUs of a machine without NVML."""
    hardware = zeus_hardware()
    if hardware is None or hardware == "apple":
        return []
    try:
        return [Choice(source) for source in open_zeus(hardware)]
    except Refused as refused:
        notes.append(Refusal(ZeusSource.provider, refused.reason, refused.mend))
        return []


def _first(providers: Sequence[tuple[str, Callable[[], Source]]], device: Device) -> Choice:
    """The first provider that does not refuse; missing if they all do."""
    refused: list[Refusal] = []
    for provider, open_source in providers:
        try:
            return Choice(open_source(), tuple(refused))
        except Refused as refusal:
            refused.append(Refusal(provider, refusal.reason, refusal.mend))
    why = "; ".join(refusal.reason for refusal in refused)
    return Choice(MissingSource(device, why), tuple(refused))


def _gpu_device(uuid: str, name: str) -> Device:
    """The facts of a GPU, from NVML as far as it tells them, else from its name."""
    try:
        nvml = NvmlDevice(uuid)
    except Refused:
        return Device(uuid, "gpu", name, "gpu", power_limit_mw=design_power_mw(name))
    nvml.close()
    if nvml.device.power_limit_mw is not None:
        return nvml.device
    return replace(nvml.device, power_limit_mw=design_power_mw(nvml.device.hw_name))
