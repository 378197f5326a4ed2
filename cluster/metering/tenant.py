"""A replica's slot at its node's meter: its device and process, and the device's sources."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass

from cluster.metering.select import choose_gpu, choose_machine
from cluster.metering.source import Source
from cluster.metering.zeus import PREFIX

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tenant:
    """A replica as its node's meter sees it: its process, and its GPU (or MIG slice) by UUID.

    replica_id: unique on the node. gpu_uuid: None on CPUs. run_id: of the run it belongs to.
    """

    replica_id: str
    pid: int
    gpu_uuid: str | None = None
    gpu_name: str = "GPU"
    run_id: str = ""


@dataclass(frozen=True)
class Admitted:
    """A tenant that is metered. gpu: the hw_id of its GPU. watched: its process can be seen."""

    tenant: Tenant
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


def gpu_source(tenant: Tenant) -> Source:
    """The best source of the tenant's GPU."""
    assert tenant.gpu_uuid is not None
    choice = choose_gpu(tenant.gpu_uuid, tenant.gpu_name)
    for refusal in choice.refused:
        logger.info("%s: not %s: %s", tenant.gpu_name, refusal.provider, refusal.reason)
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
    # Of a MIG slice CUDA may tell the board's UUID, which would charge the whole board.
    return properties.name, visible if visible.startswith("MIG-") else str(properties.uuid)


def tenant_here(replica_id: str, device: str) -> Tenant:
    """This process as a tenant of the torch device ``cpu`` or ``cuda``."""
    name, uuid = device_of(device)
    return Tenant(replica_id, os.getpid(), uuid, name)
