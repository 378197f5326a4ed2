"""Choose the best provider for each device, and say why the better ones were refused.

One that measures is watched for a moment first, and guarded from then on (``guarded.py``).

GPU: NVML's counter, its power integrated, zeus, an estimate, missing.
CPU: RAPL, zeus, an estimate, missing; or what stands in for them (replay_node).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from cluster.hardware.datasheets import design_power_mw
from cluster.hardware.identify import cpu_name
from cluster.ledger.reading import Device
from cluster.metering.choice import Choice, MachineMeters, Refusal
from cluster.metering.estimate import CpuEstimate, GpuEstimate
from cluster.metering.guarded import Guarded, prove
from cluster.metering.missing import MissingSource
from cluster.metering.nvml import NvmlDevice, list_gpus
from cluster.metering.nvml_sources import NvmlCounter, NvmlPower
from cluster.metering.plausibility import limits_of
from cluster.metering.rapl import POWERCAP
from cluster.metering.rapl_choice import Machine, choose_rapl
from cluster.metering.replay_node import REPLAY_ENV, ReplayNode
from cluster.metering.source import Refused, Source
from cluster.metering.zeus import PREFIX, ZeusSource, open_zeus, open_zeus_gpu, zeus_hardware


def choose_gpu(uuid: str, name: str = "GPU") -> Choice:
    """The source of a GPU or MIG slice. name: used if no driver reports one."""

    providers: list[tuple[str, Callable[[], Source]]] = [
        (NvmlCounter.provider, lambda: _believed(NvmlCounter(uuid))),
        (NvmlPower.provider, lambda: _believed(NvmlPower(uuid))),
        (GpuEstimate.provider, lambda: GpuEstimate(_gpu_device(uuid, name))),
    ]
    if uuid.startswith(PREFIX):
        providers[:2] = [(ZeusSource.provider, lambda: _believed(open_zeus_gpu(uuid)))]
    elif zeus_hardware() == "jetson":
        providers.insert(2, (ZeusSource.provider, lambda: _believed(open_zeus("jetson")[0])))
    return _first(providers, Device(uuid, "gpu", name, "gpu"))


def choose_cpu(powercap: Path = POWERCAP) -> tuple[Choice, ...]:
    """The sources of the machine's CPUs: every package and its memory, or one for them all.

    With ``UN0_METER_REPLAY`` the stand-in alone: missing rather than another's joules.
    """
    return _choose_cpus(powercap).choices


def choose_machine(powercap: Path = POWERCAP) -> MachineMeters:
    """The sources of every device of this machine, none of whose zones overlap."""
    notes: list[Refusal] = []
    gpus: list[Choice] = []
    try:
        found = list_gpus()
        lost = [(i, gpu) for i, gpu in enumerate(found) if isinstance(gpu, Refused)]
        notes += [Refusal.of("nvml", gpu, f"GPU {i}") for i, gpu in lost]
        with ThreadPoolExecutor(len(found) or 1) as pool:  # each is watched for a moment
            gpus += pool.map(choose_gpu, [gpu for gpu in found if isinstance(gpu, str)])
    except Refused as refused:
        notes.append(Refusal.of("nvml", refused))
        gpus += _zeus_gpus(notes)
    if any(choice.source.device.zone == "module" for choice in gpus):
        notes.append(Refusal("rapl", "the CPU is part of its GPU's module, and metered with it"))
        return MachineMeters(tuple(gpus), tuple(notes))
    cpus = _choose_cpus(powercap)
    return MachineMeters((*gpus, *cpus.choices), (*notes, *cpus.notes))


def _choose_cpus(powercap: Path) -> MachineMeters:
    if replay := os.environ.get(REPLAY_ENV):
        stand_in = [(ReplayNode.provider, lambda: ReplayNode(Path(replay)))]
        return MachineMeters((_first(stand_in, Device("cpu", "cpu", cpu_name(), "host")),))
    try:
        choices, notes = choose_rapl(Machine(powercap))
        return MachineMeters(tuple(choices), tuple(notes))
    except Refused as refused:
        refusal = Refusal.of("rapl", refused)
    providers: list[tuple[str, Callable[[], Source]]] = [(CpuEstimate.provider, CpuEstimate)]
    if zeus_hardware() == "apple":
        providers.insert(0, (ZeusSource.provider, lambda: _believed(open_zeus("apple")[0])))
    choice = _first(providers, Device("cpu", "cpu", cpu_name(), "host"))
    return MachineMeters((replace(choice, refused=(refusal, *choice.refused)),))


def _zeus_gpus(notes: list[Refusal]) -> list[Choice]:
    """The GPUs of a machine without NVML."""
    hardware = zeus_hardware()
    if hardware is None or hardware == "apple":
        return []
    try:
        sources = open_zeus(hardware)
        if hardware == "jetson":  # a module, of which nothing else is known than of its CPU
            return [Choice(_believed(source)) for source in sources]
        return [_zeus_choice(source) for source in sources]
    except Refused as refused:
        notes.append(Refusal.of(ZeusSource.provider, refused))
        return []


def _zeus_choice(source: ZeusSource) -> Choice:
    """A GPU's source of zeus, or what it gets instead if that cannot be believed."""
    providers: list[tuple[str, Callable[[], Source]]] = [
        (source.provider, lambda: _believed(source)),
        (GpuEstimate.provider, lambda: _estimate(source.device)),
    ]
    return _first(providers, source.device)


def _believed(source: NvmlCounter | NvmlPower | ZeusSource) -> Source:
    """The source, guarded, once it has been seen to go on. Raises Refused if it cannot be right."""
    busy_s = (lambda: None) if isinstance(source, ZeusSource) else source.busy_s
    guarded = Guarded(source, limits_of(source.device), busy_s, lambda: _estimate(source.device))
    (refused,) = prove([guarded])
    if refused is not None:
        guarded.close()
        raise refused
    return guarded


def _estimate(device: Device) -> Source:
    """What a device gets whose meter cannot be believed. Raises Refused."""
    if device.hw_type == "cpu":
        return CpuEstimate(device=device)
    limit_mw = device.power_limit_mw or design_power_mw(device.hw_name)
    return GpuEstimate(replace(device, power_limit_mw=limit_mw))


def _first(providers: Sequence[tuple[str, Callable[[], Source]]], device: Device) -> Choice:
    """The first provider that does not refuse; missing if they all do."""
    refused: list[Refusal] = []
    for provider, open_source in providers:
        try:
            return Choice(open_source(), tuple(refused))
        except Refused as refusal:
            refused.append(Refusal.of(provider, refusal))
    why = "; ".join(refusal.reason for refusal in refused)
    return Choice(MissingSource(device, why), tuple(refused))


def _gpu_device(uuid: str, name: str) -> Device:
    """The properties of a GPU: from NVML as far as it reports them, else from its name."""
    try:
        nvml = NvmlDevice(uuid)
    except Refused:
        return Device(uuid, "gpu", name, "gpu", power_limit_mw=design_power_mw(name))
    nvml.close()
    if nvml.device.power_limit_mw is not None:
        return nvml.device
    return replace(nvml.device, power_limit_mw=design_power_mw(nvml.device.hw_name))
