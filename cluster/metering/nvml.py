"""NVIDIA GPUs through the driver's own library, by UUID: CUDA_VISIBLE_DEVICES means nothing to it.

A MIG slice has no counter of its own: it is read as its board, with its share of the compute
slices. On Grace Hopper the counter covers the module, Grace CPU and memory included.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import pynvml

from cluster.ledger.reading import Device, Zone
from cluster.metering.source import Refused

_NO_SAMPLES = (pynvml.NVML_SUCCESS, pynvml.NVML_ERROR_NOT_FOUND)  # the former raised for none


class NvmlDevice:
    """One GPU or MIG slice, opened by UUID, and the NVML session that goes with it.

    uuid: ``GPU-…``, ``MIG-…``, or one of them without its prefix. Raises Refused if there is no
    NVML or no such device.
    """

    def __init__(self, uuid: str) -> None:
        with nvml_refusals(f"GPU {uuid}"):
            pynvml.nvmlInit()
            self._open = True
            self._lock = threading.Lock()
            try:
                handle = _handle(uuid)
                self.board = _board_of(handle)
                self.device = _describe(handle, self.board)
            except BaseException:
                self.close()
                raise

    def energy_mj(self) -> int:
        """The board's energy counter. Raises NVMLError."""
        return int(pynvml.nvmlDeviceGetTotalEnergyConsumption(self.board))

    def power_mw(self) -> int:
        """The power of what the energy counter counts: the board, or the module. Raises NVMLError.

        Ampere (but for the A100) and newer report the mean of the last second.
        """
        if self.device.zone != "module":
            return int(pynvml.nvmlDeviceGetPowerUsage(self.board))
        wanted = (pynvml.NVML_FI_DEV_POWER_AVERAGE, pynvml.NVML_POWER_SCOPE_MODULE)
        field = pynvml.nvmlDeviceGetFieldValues(self.board, [wanted])[0]
        if field.nvmlReturn != pynvml.NVML_SUCCESS:
            raise pynvml.NVMLError(field.nvmlReturn)
        return int(field.value.uiVal)

    def utilisation(self) -> float:
        """The part of the last sampling period (up to a second) in which the board worked, 0 to 1.
        Raises NVMLError, for example with MIG."""
        return float(pynvml.nvmlDeviceGetUtilizationRates(self.board).gpu) / 100

    def processes(self) -> set[int]:
        """The processes on the board, as the driver numbers them. Raises NVMLError."""
        return {p.pid for p in pynvml.nvmlDeviceGetComputeRunningProcesses(self.board)}

    def busy_since(self, stamp_us: int) -> tuple[set[int], int]:
        """The processes that the board worked for since then, and the driver's stamp of now.

        stamp_us: what the last call gave; 0 at first. Raises NVMLError, for example with MIG.
        """
        try:
            samples = pynvml.nvmlDeviceGetProcessUtilization(self.board, stamp_us)
        except pynvml.NVMLError as error:
            if error.value not in _NO_SAMPLES:
                raise
            return set(), stamp_us
        busy = {s.pid for s in samples if s.smUtil > 0 and s.timeStamp > stamp_us}
        return busy, max((int(s.timeStamp) for s in samples), default=stamp_us)

    def close(self) -> None:
        """End the session, once: sessions are counted, and others may be open."""
        with self._lock:
            was_open, self._open = self._open, False
        if was_open:
            with contextlib.suppress(pynvml.NVMLError):
                pynvml.nvmlShutdown()


def list_gpus() -> list[str | Refused]:
    """The UUID of every GPU that NVML sees, or why it has none: the boards, not their MIG slices.

    Raises Refused where there is no NVML.
    """
    found: list[str | Refused] = []
    with nvml_refusals("the list of GPUs"):
        pynvml.nvmlInit()
        try:
            for index in range(pynvml.nvmlDeviceGetCount()):
                try:
                    with nvml_refusals(f"GPU {index}"):
                        handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                        found.append(_text(pynvml.nvmlDeviceGetUUID(handle)))
                except Refused as refused:
                    found.append(refused)
        finally:
            pynvml.nvmlShutdown()
    return found


def gpu_bus_ids() -> dict[str, str]:
    """By UUID, the PCI address of every GPU of which NVML gives one: ``00000000:3B:00.0``."""
    found: dict[str, str] = {}
    with contextlib.suppress(pynvml.NVMLError):
        pynvml.nvmlInit()
        try:
            for index in range(pynvml.nvmlDeviceGetCount()):
                with contextlib.suppress(pynvml.NVMLError):
                    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
                    uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
                    found[uuid] = _text(pynvml.nvmlDeviceGetPciInfo(handle).busId)
        finally:
            pynvml.nvmlShutdown()
    return found


def cuda_version() -> str | None:
    """The newest CUDA that the driver can run, such as ``12.8``; None if it is unknown."""
    try:
        pynvml.nvmlInit()
        try:
            number = int(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return None
    return f"{number // 1000}.{number % 1000 // 10}"


@contextlib.contextmanager
def nvml_refusals(what: str) -> Iterator[None]:
    """Turn NVML errors into Refused, with what the user can do about them."""
    try:
        yield
    except pynvml.NVMLError_LibraryNotFound:
        raise Refused(
            "NVML is not there: no libnvidia-ml.so.1",
            "where there is an NVIDIA GPU: install its driver; run a container with --gpus all and "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility",
        ) from None
    except pynvml.NVMLError as error:
        raise Refused(f"NVML does not give {what}: {error}") from None


def _handle(uuid: str) -> Any:
    if uuid.startswith(("GPU-", "MIG-")):
        return pynvml.nvmlDeviceGetHandleByUUID(uuid)
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}")
    except pynvml.NVMLError:
        return pynvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}")


def _board_of(handle: Any) -> Any:
    try:
        if not pynvml.nvmlDeviceIsMigDeviceHandle(handle).value:
            return handle
    except pynvml.NVMLError:  # a driver from before MIG
        return handle
    return pynvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle)


def _describe(handle: Any, board: Any) -> Device:
    uuid = _text(pynvml.nvmlDeviceGetUUID(handle))
    board_uuid = _text(pynvml.nvmlDeviceGetUUID(board))
    name = _text(pynvml.nvmlDeviceGetName(board))
    zone: Zone = "module" if "GH200" in name else "gpu"
    limit_mw: int | None = None
    with contextlib.suppress(pynvml.NVMLError):
        limit_mw = int(pynvml.nvmlDeviceGetEnforcedPowerLimit(board))
    return Device(
        hw_id=uuid,
        hw_type="gpu",
        hw_name=name,
        zone=zone,
        hw_parent=None if uuid == board_uuid else board_uuid,
        share=Fraction(1) if uuid == board_uuid else _share(handle, board),
        driver_version=_text(pynvml.nvmlSystemGetDriverVersion()),
        power_limit_mw=limit_mw,
    )


def _share(slice_: Any, board: Any) -> Fraction:
    """The slice's compute slices of the board's. The compute instances of one GPU instance each
    count their own, so that the shares of a board never add up to more than one."""
    mine = int(pynvml.nvmlDeviceGetAttributes(slice_).computeInstanceSliceCount)
    return min(Fraction(1), Fraction(mine, int(pynvml.nvmlDeviceGetMaxMigDeviceCount(board))))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
