"""Every way in which a command is asked to stop: it ends soon, in order, and with its joules."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import psutil
import pytest

from cluster.actors.launch import LOCAL
from cluster.hardware.identify import host_name
from cluster.ledger.reader import open_ends
from cluster.storage.decisions import read_decisions
from cluster.storage.open import open_store
from tests.support import terminal
from tests.support.cli import AT_WORK, Running, running, un0_json
from tests.support.effort import costly

# One shard that takes many minutes: whatever the grace, it is not waited for
ENDLESS = ("--count", "2000000", "--shard-images", "2000000", "--seed", "5", "--job-id", "job")
WORK_S = 2.0  # CPU time
SLOW_MACHINE = ("--stop-within", "40")


def generate(store: Path, *more: str, under: tuple[str, ...] = ()) -> Any:
    return running("generate", *ENDLESS, "--store", str(store), "--json", *more, under=under)


def until_it_generates(command: Running) -> psutil.Process:
    """Wait until a replica has worked on the shard for a while; the replica."""
    command.until(lambda: bool(command.replicas(AT_WORK)))
    replica = command.replicas("")[0]
    begun_s = replica.cpu_times().user
    command.until(lambda: replica.cpu_times().user > begun_s + WORK_S)
    return replica


def assert_quiet(stderr: str) -> None:
    for noise in ("Traceback", "***", "Exception", "Error"):
        assert noise not in stderr, stderr


def assert_in_order(store: Path, command: Running) -> None:
    """It ended in order, said how to go on, and lost nothing."""
    assert_quiet(command.stderr)
    assert "un0 resume job" in command.stderr
    assert json.loads(command.stdout)["state"] == "stopped"
    assert_kept(store)


def assert_kept(store: Path) -> None:
    """The job is resumable, and its energy and decisions are written."""
    opened = open_store(str(store), probe=False)
    log = str(store / "energy" / "**" / "*.parquet")
    wasted = duckdb.sql(
        f"select count(*), sum(energy_mj) from read_parquet('{log}') where bucket = 'wasted'"
    ).fetchall()
    ((rows, energy_mj),) = wasted
    assert rows > 0
    assert energy_mj is None or energy_mj > 0  # None: nothing meters this machine
    assert open_ends(opened, host_name(), LOCAL, datetime.now(UTC)) == {}, "a log that broke off"
    assert {"plan", "lease"} <= {decision.kind for decision in read_decisions(opened, "job")}
    (job,) = un0_json("jobs", "--store", str(store))
    assert (job["state"], job["images"]) == ("incomplete", 0)


def is_listening(process: int) -> bool:
    """Whether the process handles SIGHUP, as no Python does by itself."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    (caught,) = [line.split()[1] for line in lines if line.startswith("SigCgt")]
    return bool(int(caught, 16) >> (signal.SIGHUP - 1) & 1)


def is_ours(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    return False


def assert_gone(processes: Iterable[psutil.Process]) -> None:
    assert not [process for process in processes if is_ours(process)]


@pytest.mark.ray
@pytest.mark.slow
def test_a_sigterm_to_all_processes_in_the_midst_of_a_shard_loses_nothing(tmp_path: Path) -> None:
    with generate(tmp_path, *SLOW_MACHINE) as command:
        until_it_generates(command)
        family = command.descendants()[:-1]
        for process in family:  # as scancel does, whatever their process groups
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGTERM)
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 143, command.stderr
        assert_in_order(tmp_path, command)
        assert_gone(family)


@pytest.mark.parametrize(
    ("number", "code"), costly((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129))
)
def test_a_signal_while_the_command_is_imported(number: signal.Signals, code: int) -> None:
    with running("jobs") as command:
        command.until(lambda: is_listening(command.process.pid))
        for _ in range(5):
            command.process.send_signal(number)
        assert command.wait() == code
        assert command.stderr == command.stdout == ""


@pytest.mark.parametrize("number", costly(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, fast=1))
def test_a_server_for_trying_things_out_goes_with_its_command(
    tmp_path: Path, number: signal.Signals
) -> None:
    with running("dev", "s3", "--dir", str(tmp_path)) as command:
        command.until(lambda: "un0 generate" in command.stdout)
        family = command.descendants()[:-1]
        command.process.send_signal(number)
        assert command.wait() == 128 + number
        assert command.stderr == ""
        assert_gone(family)


@pytest.mark.ray
@pytest.mark.slow
def test_a_signal_before_ray_is_up(tmp_path: Path) -> None:
    with generate(tmp_path) as command:
        command.until(lambda: len(command.descendants()) > 1)
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 143
        assert_quiet(command.stderr)
        assert "run the command again" in command.stderr
        assert not (tmp_path / "jobs").exists()
        assert json.loads(command.stdout)["state"] == "stopped"


@pytest.mark.ray
@pytest.mark.slow
def test_a_replica_that_hangs_is_not_waited_for(tmp_path: Path) -> None:
    with generate(tmp_path, "--stop-within", "20") as command:
        until_it_generates(command).send_signal(signal.SIGSTOP)
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 143
        assert_in_order(tmp_path, command)


@pytest.mark.ray
@pytest.mark.slow
def test_a_second_signal_does_not_wait_for_shards(tmp_path: Path) -> None:
    with generate(tmp_path, "--stop-within", "100000") as command:
        until_it_generates(command).send_signal(signal.SIGSTOP)  # it would be waited for
        command.process.send_signal(signal.SIGTERM)
        command.process.send_signal(signal.SIGTERM)
        assert command.wait() == 143
        assert_in_order(tmp_path, command)


@pytest.mark.ray
@pytest.mark.slow
def test_five_times_ctrl_c(tmp_path: Path) -> None:
    with generate(tmp_path, *SLOW_MACHINE) as command:
        until_it_generates(command)
        for _ in range(5):
            os.killpg(command.process.pid, signal.SIGINT)
        while command.process.poll() is None:  # and on, whatever it is at
            with contextlib.suppress(ProcessLookupError):
                os.killpg(command.process.pid, signal.SIGINT)
            time.sleep(0.01)
        assert command.wait() == 130
        assert_in_order(tmp_path, command)


@pytest.mark.ray
@pytest.mark.slow
def test_a_closed_terminal(tmp_path: Path) -> None:
    here = (sys.executable, terminal.__file__)
    arguments = ("generate", *ENDLESS, "--store", str(tmp_path), *SLOW_MACHINE)
    with running(*arguments, under=here) as command:
        until_it_generates(command)
        command.process.send_signal(signal.SIGUSR1)
        assert command.wait() == 129
        assert_kept(tmp_path)
