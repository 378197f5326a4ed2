"""``un0`` answers before anything large is imported; its table of commands agrees with them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module, metadata
from pathlib import Path
from pkgutil import iter_modules

import pytest
import typer

import jobs.cli
from cluster.storage.open import open_store
from jobs.cli.lazy import Command
from jobs.cli.main import COMMANDS, VERSIONS_OF, main
from tests.support import jobfactory

NOT_FOR_HELP = {
    "torch", "scipy", "ray", "pyarrow", "pandas", "numpy", "boto3", "botocore", "duckdb", "numba",
    "llvmlite", "PIL", "psutil", "grpc", "huggingface_hub", "pynvml",
}  # fmt: skip
NOT_FOR_LISTS = NOT_FOR_HELP | {"pydantic"}

PROBE = """
import os, sys
code = 0
try:
    from jobs.cli.main import app
    sys.argv = ["un0", *sys.argv[1:]]
    app()
except SystemExit as end:
    code = end.code or 0
print("imported", *sorted(name for name in sys.modules if "." not in name), file=sys.stderr)
sys.stdout.flush()
sys.stderr.flush()
os._exit(code)
"""


def imported_by(*args: str, **env: str) -> tuple[set[str], str]:
    """The packages that ``un0 ARGS`` imports, and what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *args],
        capture_output=True,
        text=True,
        env={"PATH": "", "HOME": "/", **env},
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("imported ")
    return set(last.split()), done.stdout


def test_help_imports_no_command() -> None:
    packages, shown = imported_by("--help")
    assert not packages & NOT_FOR_LISTS
    for command in COMMANDS:
        assert f" {command.name} " in shown


def test_completion_imports_no_command() -> None:
    env = {"_UN0_COMPLETE": "complete_bash", "COMP_WORDS": "un0 ver", "COMP_CWORD": "1"}
    packages, offered = imported_by(**env)
    assert offered.split() == ["verify"]
    assert not packages & NOT_FOR_LISTS
    env = {"_UN0_COMPLETE": "complete_bash", "COMP_WORDS": "un0 verify --st", "COMP_CWORD": "2"}
    packages, offered = imported_by(**env)
    assert offered.split() == ["--store"]
    assert not packages & NOT_FOR_HELP


def test_a_stores_jobs_are_listed_without_what_reads_images(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    jobfactory.submit(store, jobfactory.workload("a-job", count=6))
    packages, shown = imported_by("jobs", "--store", str(tmp_path))
    assert "a-job" in shown
    assert not packages & NOT_FOR_HELP


def test_the_module_of_no_command_imports_what_is_large() -> None:
    homes = sorted({command.home.partition(":")[0] for command in COMMANDS})
    code = f"import sys, {', '.join(homes)}; print(*(n for n in sys.modules if '.' not in n))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not set(done.stdout.split()) & NOT_FOR_HELP


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_the_table_has_each_commands_own_help(command: Command) -> None:
    real = command.load()
    assert real.name == command.name
    assert " ".join(real.help.partition("\n\n")[0].split()) == command.help


def test_every_command_is_in_the_table() -> None:
    """Functions called ``*_command`` and Typer objects are commands, or below one."""
    listed = {command.home for command in COMMANDS}
    below: set[Callable[..., object] | None] = set()
    for home in listed:
        module, _, name = home.partition(":")
        found = getattr(import_module(module), name)
        if isinstance(found, typer.Typer):
            below |= {info.callback for info in found.registered_commands}
            below |= {found.registered_callback.callback} if found.registered_callback else set()
    lacking = []
    for info in iter_modules(jobs.cli.__path__, "jobs.cli."):
        if info.name in ("jobs.cli.__main__", "jobs.cli.main"):
            continue
        for name, value in vars(import_module(info.name)).items():
            is_command = (
                inspect.isfunction(value)
                and value.__module__ == info.name
                and name.endswith("_command")
                and name != "resume_command"  # of run.py: the words to paste
            ) or isinstance(value, typer.Typer)
            if is_command and f"{info.name}:{name}" not in listed and value not in below:
                lacking.append(f"{info.name}:{name}")
    assert not lacking
    assert len({command.name for command in COMMANDS}) == len(COMMANDS)


def run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str
) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["un0", *args])
    with pytest.raises(SystemExit) as end:
        main()
    out, err = capsys.readouterr()
    return int(end.value.code or 0), out, err


def test_the_version_names_what_a_fault_report_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, _ = run(monkeypatch, capsys, "--version")
    assert code == 0
    lines = dict(line.split(" ", 1) for line in out.splitlines())
    assert lines.keys() == {*VERSIONS_OF, "python"}
    assert lines["pyarrow"] == metadata.version("pyarrow")


def test_help_shows_what_the_option_shows(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ((), ("verify",), ("dev", "s3")):
        code, by_command, _ = run(monkeypatch, capsys, "help", *words)
        assert code == 0
        assert by_command == run(monkeypatch, capsys, *words, "--help")[1]


@pytest.mark.parametrize("before", [(), ("help",)])
def test_an_unknown_command_offers_the_nearest(
    before: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, *before, "explian")
    assert code == 2
    assert "'explain'" in err


def test_help_of_a_word_below_a_command_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, _, err = run(monkeypatch, capsys, "help", "verify", "job")
    assert code == 2
    assert "verify' has no command 'job'" in err
