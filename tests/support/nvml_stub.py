"""Builds and plays the NVML stub: made-up GPUs that the real nvidia-ml-py reads."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import pytest

T = TypeVar("T")
SOURCE = Path(__file__).with_suffix(".c")
STATE_VARIABLE = "UN0_NVML_STUB"
LOST, UNKNOWN_ERROR = 15, 999


@dataclass(frozen=True)
class Gpu:
    """A board. Its counter is ``counter_mj`` plus ``rate_mw`` since the machine started, updated
    every ``update_ms``. util: in per cent. None: not supported. status: what NVML answers, 0 being
    success."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    status: int = 0
    counter_mj: int | None = 1_000_000
    rate_mw: int = 0
    update_ms: int = 100
    power_mw: int | None = 100_000
    limit_mw: int | None = 700_000
    module_mw: int | None = None
    util: int | None = None

    def line(self) -> str:
        numbers = (
            self.status, self.counter_mj, self.rate_mw, self.update_ms, self.power_mw,
            self.limit_mw, self.module_mw, self.util,
        )  # fmt: skip
        texts = ("-1" if number is None else str(number) for number in numbers)
        return "|".join(("board", self.uuid, self.name, *texts))


@dataclass(frozen=True)
class Mig:
    """A slice of a board, of so many of its seven compute slices."""

    uuid: str
    board: str
    slices: int

    def line(self) -> str:
        return f"mig|{self.uuid}|{self.board}|{self.slices}"


@dataclass(frozen=True)
class Process:
    """One that has a context on a board, with the newest sample of what it made of it, in per
    cent; None: the driver has no samples for anybody on the board."""

    board: str
    pid: int
    util: int | None = 0
    stamp_us: int = 1

    @property
    def uuid(self) -> str:
        return f"{self.board}/{self.pid}"

    def line(self) -> str:
        util = -1 if self.util is None else self.util
        return f"process|{self.board}|{self.pid}|{util}|{self.stamp_us}"


@dataclass
class NvmlStub:
    """The state that the library plays; any process may change it.

    library: None in a process that has it loaded.
    """

    state: Path
    library: Path | None = None
    devices: dict[str, Gpu | Mig | Process] = field(default_factory=dict)

    def add(self, *devices: Gpu | Mig | Process) -> None:
        for device in devices:
            self.devices[device.uuid] = device
        self._write()

    def set(self, uuid: str, **changes: Any) -> None:
        """Change what NVML says of a device from now on."""
        self.devices[uuid] = replace(self.devices[uuid], **changes)
        self._write()

    def spend(self, uuid: str, energy_mj: int) -> None:
        """Let the board's counter go on by so much."""
        gpu = self.devices[uuid]
        assert isinstance(gpu, Gpu)
        assert gpu.counter_mj is not None
        self.set(uuid, counter_mj=gpu.counter_mj + energy_mj)

    @classmethod
    def of_this_process(cls) -> NvmlStub:
        """In a process started with ``env()``: the state it sees, without any device."""
        return cls(Path(os.environ[STATE_VARIABLE]))

    def env(self) -> dict[str, str]:
        """What a process that is to see these GPUs must be started with."""
        assert self.library is not None
        return {
            "LD_LIBRARY_PATH": str(self.library.parent),
            STATE_VARIABLE: str(self.state),
        }

    def _write(self) -> None:
        fresh = self.state.with_suffix(".new")
        fresh.write_text("".join(device.line() + "\n" for device in self.devices.values()))
        fresh.replace(self.state)


def build_nvml_stub(directory: Path) -> NvmlStub:
    """Compile the stub there, with no GPU yet; skip the test where there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("needs gcc, to compile the NVML stub")
    library = directory / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-Wall", "-Werror", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run([compiler, *flags, "-o", str(library), str(SOURCE)], check=True)
    return NvmlStub(directory / "state", library)


class StubProcess:
    """A process that sees the stub's GPUs, since the loader reads LD_LIBRARY_PATH but once."""

    def __init__(self, stub: NvmlStub) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in stub.env().items():
                patch.setenv(name, value)
            self._pool = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self._pool.submit(os.getpid).result()  # it is started here, in this environment

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a module's function there; its assertions fail here."""
        return self._pool.submit(function, *args).result()

    def close(self) -> None:
        self._pool.shutdown()
