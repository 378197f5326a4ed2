"""Choose the best meter for a device, and say why where it is not the best kind."""

from __future__ import annotations

import pynvml

from cluster.metering.estimate import CpuTimeMeter
from cluster.metering.meter import Meter, MissingMeter
from cluster.metering.nvml import NvmlCounterMeter


def choose_meter(device_name: str, gpu_uuid: str | None) -> Meter:
    """The meter of a replica on the GPU of that UUID, or on the CPU when there is none."""
    if gpu_uuid is None:
        return CpuTimeMeter()
    try:
        return NvmlCounterMeter(gpu_uuid)
    except pynvml.NVMLError as error:
        return MissingMeter(hardware=device_name, provider=f"missing: NVML says {error}")
