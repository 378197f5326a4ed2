"""A replica's seat at its node's meter: its device and process, and the device's sources."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from cluster.ledger.reading import Source
from cluster.metering.select import choose_gpu, choose_machine
from cluster.metering.zeus import PREFIX

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seat:
    """A replica as its node's meter sees it: its process, and its GPU (or MIG slice) by UUID.

    replica_id: unique on the node. gpu_uuid: None on CPUs. run_id: of the run it belongs to.
    """

    replica_id: str
    pid: int
    gpu_uuid: str | None = None
    gpu_name: str = "GPU"
    run_id: str = ""


@dataclass(frozen=True)
class Taken:
    """A seat that is taken. gpu: the hw_id of its GPU. watched: its process can be seen."""

    seat: Seat
    gpu: str | None
    watched: bool


def host_sources() -> list[Source]:
    """The best sources of this machine's CPUs; none where their joules are in a GPU's module."""
    machine = choose_machine()
    cpus = [c.source for c in machine.choices if c.source.device.hw_type == "cpu"]
    for choice in machine.choices:
        if choice.source not in cpus:
            choice.source.close()
    return cpus


def gpu_source(seat: Seat) -> Source:
    """The best source of the seat's GPU."""
    assert seat.gpu_uuid is not None
    choice = choose_gpu(seat.gpu_uuid, seat.gpu_name)
    for refusal in choice.refused:
        logger.info("%s: not %s: %s", seat.gpu_name, refusal.provider, refusal.reason)
    return choice.source


def device_of(device: str) -> tuple[str, str | None]:
    """(name, UUID or None for a CPU) of the torch device that this process computes on."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return "cpu", None
    properties = torch.cuda.get_device_properties(0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    if torch.version.hip is not None:  # AMD's are metered by index
        visible = os.environ.get("HIP_VISIBLE_DEVICES", visible).partition(",")[0]
        return properties.name, f"{PREFIX}{visible or 0}"
    # For a MIG slice CUDA may give the board's UUID, which would charge the whole board.
    return properties.name, visible if visible.startswith("MIG-") else str(properties.uuid)


def take_seat(replica_id: str, device: str) -> Seat:
    """The seat of this process on the torch device ``cpu`` or ``cuda``."""
    name, uuid = device_of(device)
    return Seat(replica_id, os.getpid(), uuid, name)
