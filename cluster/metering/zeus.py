"""AMD GPUs, Apple silicon and Jetson, through the package `zeus` (the extra ``zeus``).

It has no UUIDs. An AMD GPU is ``zeus:`` and its HIP index, the whole chip of the others
``zeus:soc``: unique within a host only, and used only where there is no NVML.
"""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Literal

from cluster.clock import monotonic_ns
from cluster.hardware.identify import cpu_name
from cluster.ledger.reading import Device, Reading
from cluster.metering.counter import CounterTrack
from cluster.metering.source import ClockNs, Refused

Hardware = Literal["amd", "apple", "jetson"]
PREFIX = "zeus:"
_MASKS = ("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES")


class ZeusSource:
    """A cumulative figure of zeus, in millijoules, as a source.

    read_mj: may raise anything; the reading is then missing.
    """

    provider = "zeus"

    def __init__(
        self,
        device: Device,
        read_mj: Callable[[], float],
        quality: Literal["measured_counter", "measured_power"],
        method: str,
        clock_ns: ClockNs = monotonic_ns,
    ) -> None:
        self.device = device
        self._read_mj = read_mj
        self._clock_ns = clock_ns
        self._track = CounterTrack(method, quality=quality)
        self._lock = threading.Lock()
        self._closed = False
        try:
            read_mj()
        except Exception as error:
            raise Refused(f"zeus does not read the energy of {device.hw_name}: {error}") from None

    def read(self) -> Reading:
        with self._lock:
            if self._closed:
                return self._track.failed(self._clock_ns(), "the meter is closed")
            try:
                value_mj = int(self._read_mj())
            except Exception as error:  # of the vendor's library, whichever it is
                return self._track.failed(self._clock_ns(), f"zeus: {error}")
            return self._track.read(self._clock_ns(), value_mj)

    def close(self) -> None:
        self._closed = True


def zeus_hardware(root: Path = Path("/")) -> Hardware | None:
    """What this machine has that zeus could read, but NVML and RAPL cannot."""
    if sys.platform == "darwin":
        return "apple" if platform.machine() == "arm64" else None
    if (root / "etc/nv_tegra_release").exists():
        return "jetson"
    return "amd" if (root / "dev/kfd").exists() else None


def open_zeus(hardware: Hardware) -> list[ZeusSource]:
    """The sources of the machine. Raises Refused if there is no zeus, or it finds nothing."""
    try:
        return _open_amd() if hardware == "amd" else [_open_soc(hardware)]
    except ImportError:
        raise Refused(
            "the package zeus is not installed", "pip install 'un0-cluster[zeus]'"
        ) from None
    except Refused:
        raise
    except Exception as error:  # of the vendor's library, whichever it is
        raise Refused(f"zeus finds nothing to read: {error}") from None


def open_zeus_gpu(hw_id: str) -> ZeusSource:
    """The source of an AMD GPU. Raises Refused."""
    sources = {source.device.hw_id: source for source in open_zeus("amd")}
    if hw_id not in sources:
        raise Refused(f"zeus sees {', '.join(sources) or 'no GPU'}, but not {hw_id}")
    return sources[hw_id]


def _open_amd() -> list[ZeusSource]:
    return [_amd_source(gpu, index) for index, gpu in enumerate(_amd_gpus().gpus)]


@cache  # the library is shut down with the object, whatever else was opened
def _amd_gpus() -> Any:
    from zeus.device.gpu import AMDGPUs, amdsmi_is_available

    if not amdsmi_is_available():
        raise Refused("zeus finds no AMD SMI library", "install ROCm 6.2 or newer")
    with _all_visible():
        return AMDGPUs()


def _amd_source(gpu: Any, index: int) -> ZeusSource:
    device = Device(
        f"{PREFIX}{index}", "gpu", gpu.get_name(), "gpu",
        power_limit_mw=gpu.get_power_management_limit(),
    )  # fmt: skip
    method = "zeus: amdsmi_get_energy_count"
    return ZeusSource(device, gpu.get_total_energy_consumption, "measured_counter", method)


def _open_soc(hardware: Hardware) -> ZeusSource:
    from zeus.device.soc import get_soc

    soc = get_soc()
    hw_id = f"{PREFIX}soc"
    if hardware == "jetson":
        device = Device(hw_id, "gpu", "NVIDIA Jetson", "module")
        method = "zeus: INA3221 power of the module integrated"

        def read_mj() -> float:
            return float(soc.get_total_energy_consumption().total_energy_mj)

        return ZeusSource(device, read_mj, "measured_power", method)
    device = Device(hw_id, "cpu", cpu_name(), "module")
    method = "zeus: energy counters of the SoC (IOReport)"
    return ZeusSource(device, lambda: _apple_mj(soc), "measured_counter", method)


def _apple_mj(soc: Any) -> int:
    """Energy of all parts of the chip that it reports, mJ; which these are depends on the chip."""
    joules = soc.get_total_energy_consumption()
    parts = (joules.cpu_total_mj, joules.gpu_mj, joules.gpu_sram_mj, joules.dram_mj, joules.ane_mj)
    if joules.cpu_total_mj is None:
        raise RuntimeError("this chip does not report the energy of its CPU")
    return sum(int(part) for part in parts if part is not None)


@contextmanager
def _all_visible() -> Iterator[None]:
    """Hide the variables that hide GPUs: zeus counts those that they leave."""
    hidden = {name: os.environ.pop(name) for name in _MASKS if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
