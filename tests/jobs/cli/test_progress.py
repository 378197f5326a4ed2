"""What takes seconds shows on a terminal that it is under way; a pipe gets nothing of it."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import cluster.calibration
import cluster.simulation.compare
import un0.train
from cluster.errors import UserError
from cluster.storage.open import open_store
from cluster.storage.summaries import load_job
from jobs.cli.live import Follower
from jobs.cli.main import main
from jobs.cli.progress import progress
from tests.support.jobfactory import submit, workload, write_shard

JOB = workload("job", count=6)
COMMANDS = {
    "verify": (("verify", "job"), "verifying"),
    "grid": (("grid", "job", "--out", "sheet.png"), "reading images"),
    "query": (("query", "select 1"), "reading"),
    "compact": (("compact",), "reading the energy log"),
    "report": (("report",), "reading the energy log"),
}
STUBBED: dict[str, tuple[tuple[str, ...], str, Any, str]] = {
    "calibrate": (("calibrate",), "loading", cluster.calibration, "calibrate"),
    "evaluate": (("evaluate", "m", "--data", "d"), "judging m", un0.train, "evaluate_model"),
    "simulate": (
        ("simulate", "reference", "day"),
        "finding the least possible energy",
        cluster.simulation.compare,
        "make_day",
    ),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    store = open_store(str(tmp_path / "store"))
    submit(store, JOB)
    write_shard(store, JOB, 0)
    return str(tmp_path / "store")


def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "xterm"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> str:
    monkeypatch.setattr(sys, "argv", ["un0", *args])
    with pytest.raises(SystemExit):
        main()
    return capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_of_a_store(
    name: str, place: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    args, words = COMMANDS[name]
    assert shown(monkeypatch, capsys, *args, "--store", place) == ""
    terminal(monkeypatch)
    assert words in shown(monkeypatch, capsys, *args, "--store", place)
    assert shown(monkeypatch, capsys, *args, "--store", place, "--json") == ""


@pytest.mark.parametrize("name", STUBBED)
def test_of_what_computes(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends_at_once(*_: object, **__: object) -> None:
        raise UserError("enough")

    args, words, module, function = STUBBED[name]
    monkeypatch.setattr(module, function, ends_at_once)
    assert shown(monkeypatch, capsys, *args) == "error: enough\n"
    terminal(monkeypatch)
    assert words in shown(monkeypatch, capsys, *args)


def test_a_run_says_what_it_waits_for_before_the_first_snapshot(place: str) -> None:
    record = load_job(open_store(place), "job")
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Follower(console, quiet=False) as follower:
        follower.on_job(record)
    shown_text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "reading the model and the store" in shown_text
    assert "job job: reading what it has" in shown_text


def test_steps_have_shares(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(monkeypatch)
    with progress("counting") as step:
        step(1, 2, "the first [half]")
    assert "the first [half]" in capsys.readouterr().err
