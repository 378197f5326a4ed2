"""Where a replica sits, and the sources of what is metered there."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from cluster.metering.reading import Source
from cluster.metering.select import choose_gpu, choose_machine

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Seat:
    """Where a replica sits: on a GPU (or MIG slice) by UUID, or on the CPUs alone; its process.

    replica_id: unlike that of any other replica on the node. run_id: of the run it belongs to.
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
