"""Where a process computes, as the meter of its node wants to know it."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Seat:
    """Where a replica sits: on a GPU (or MIG slice) by UUID, or on the CPUs alone; its process."""

    replica_id: str
    pid: int
    gpu_uuid: str | None = None
    gpu_name: str = "GPU"


def take_seat(replica_id: str, device: str) -> Seat:
    """The seat of this process on the torch device ``cpu`` or ``cuda``."""
    import torch

    if device == "cpu" or not torch.cuda.is_available():
        return Seat(replica_id, os.getpid(), None, "cpu")
    properties = torch.cuda.get_device_properties(0)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").partition(",")[0]
    # Of a MIG slice CUDA may tell the board's UUID, which would charge the whole board.
    uuid = visible if visible.startswith("MIG-") else str(properties.uuid)
    return Seat(replica_id, os.getpid(), uuid, properties.name)
