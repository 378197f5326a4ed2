"""The command line as a user runs it: in this process where that makes no difference, since the
imports of another take seconds; else in its own, which tests can watch and kill."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from jobs.cli.main import command

WAIT_S = 240.0
AT_WORK = ".report"  # the method in which a replica is, nearly always, once it has had work
#: They read or write a store or a file, and start neither Ray nor threads that stay.
IN_PROCESS = frozenset(
    {"bench", "compact", "explain", "export", "grid", "jobs", "models", "plan"}
    | {"query", "report", "verify"}
)


def un0(*args: str) -> subprocess.CompletedProcess[str]:
    """Run ``un0 ARGS`` to its end; whatever its exit code."""
    return _un0_here(*args) if args[0] in IN_PROCESS else un0_process(*args)


def un0_process(*args: str, timeout_s: float = 240.0) -> subprocess.CompletedProcess[str]:
    """Run ``un0 ARGS`` to its end in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "jobs", *args],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        stdin=subprocess.DEVNULL,
    )


def un0_json(*args: str) -> Any:
    """The JSON that ``un0 ARGS --json`` prints; the command must succeed."""
    done = un0(*args, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def _un0_here(*args: str) -> subprocess.CompletedProcess[str]:
    out, err = (
        io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)
    )
    with (
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setattr(sys, "argv", ["un0", *args])
        code = command()
    texts = (stream.buffer.getvalue().decode() for stream in (out, err))
    return subprocess.CompletedProcess(args, code, *texts)


class Running:
    """``un0 ARGS`` under way."""

    def __init__(self, *args: str, under: Sequence[str] = ()) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._out = Path(self._directory.name, "out")
        self._err = Path(self._directory.name, "err")
        with self._out.open("w") as out, self._err.open("w") as err:
            self.process = subprocess.Popen(
                [*under, sys.executable, "-m", "jobs", *args],
                stdout=out,
                stderr=err,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    @property
    def stdout(self) -> str:
        return self._out.read_text()

    @property
    def stderr(self) -> str:
        return self._err.read_text()

    def descendants(self) -> list[psutil.Process]:
        """Every process this command started, itself last."""
        try:
            root = psutil.Process(self.process.pid)
            return [*root.children(recursive=True), root]
        except psutil.NoSuchProcess:
            return []

    def replicas(self, method: str = "") -> list[psutil.Process]:
        """Its replica processes, by the title Ray gives them; those in ``method``, say AT_WORK."""
        return [p for p in self.descendants() if _title(p).startswith(f"ray::Replica{method}")]

    def interrupt(self) -> None:
        """Ctrl-C."""
        self.process.send_signal(signal.SIGINT)

    def kill_everything(self) -> None:
        """kill -9 to the driver and all of its Ray, as a power cut would."""
        processes = self.descendants()
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(processes, timeout=WAIT_S)
        self.process.wait()

    def wait(self) -> int:
        return self.process.wait(WAIT_S)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for the condition while the command runs; fail if it ends first."""
        deadline_s = time.monotonic() + WAIT_S
        while not condition():
            assert self.process.poll() is None, f"it ended early:\n{self.stdout}\n{self.stderr}"
            assert time.monotonic() < deadline_s, f"waited in vain:\n{self.stderr}"
            time.sleep(0.05)


@contextlib.contextmanager
def running(*args: str, under: Sequence[str] = ()) -> Iterator[Running]:
    """``un0 ARGS`` under way; nothing of it is left afterwards. under: a command to run it by."""
    command = Running(*args, under=under)
    try:
        yield command
    finally:
        command.kill_everything()


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return ""
