"""The energy counter that NVIDIA's driver keeps per board (Volta and newer), read by UUID."""

from __future__ import annotations

import logging

import pynvml

from cluster.types import MISSING_ENERGY, Energy

logger = logging.getLogger(__name__)
METHOD = "nvmlDeviceGetTotalEnergyConsumption"


class NvmlCounterMeter:
    """Meters one GPU by its UUID (``GPU-…``), whatever CUDA_VISIBLE_DEVICES hides or renumbers.

    Raises pynvml.NVMLError when the driver, the device or its counter is not there.
    """

    provider = "nvml-counter"

    def __init__(self, uuid: str) -> None:
        pynvml.nvmlInit()
        try:
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
            self._last_mj: int | None = self._read_mj()
            self.hardware = _text(pynvml.nvmlDeviceGetName(self._handle))
        except BaseException:
            pynvml.nvmlShutdown()
            raise

    def _read_mj(self) -> int:
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self._handle))

    def lap(self) -> Energy:
        """Energy of the whole board since the last lap; missing if the counter failed or reset."""
        last_mj = self._last_mj
        try:
            self._last_mj = self._read_mj()
        except pynvml.NVMLError as error:
            logger.warning("the energy counter of %s cannot be read: %s", self.hardware, error)
            self._last_mj = None
        if last_mj is None or self._last_mj is None or self._last_mj < last_mj:
            return MISSING_ENERGY
        return Energy(energy_mj=self._last_mj - last_mj, quality="measured_counter", method=METHOD)

    def close(self) -> None:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
