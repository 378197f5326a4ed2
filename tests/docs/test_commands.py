"""Every command in README and docs exists with its options; each is run by a test, or needs what
a test cannot have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from jobs.cli.main import app
from tests.support.pages import ROOT, inline_commands, pages, shell_commands, words

#: Commands without arguments that are quick, and run here.
RUN_HERE = ("un0 meters", "un0 meters --json", "un0 models", "un0 jobs")

#: The test that runs each of the other commands. Here their lines are only parsed.
RUN_BY = {
    "un0 submit": "tests/jobs/cli/test_service_commands.py",
    "un0 quote": "tests/jobs/cli/test_service_commands.py",
    "un0 status": "tests/jobs/cli/test_service_commands.py",
    "un0 watch": "tests/jobs/cli/test_service_commands.py",
    "un0 pause": "tests/jobs/cli/test_service_commands.py",
    "un0 cancel": "tests/jobs/cli/test_service_commands.py",
    "un0 results": "tests/jobs/cli/test_service_commands.py",
    "un0 logs": "tests/jobs/cli/test_service_commands.py",
    "un0 gc": "tests/jobs/cli/test_service_commands.py",
    "un0 generate": "tests/e2e/test_main_job.py",
    "un0 resume": "tests/e2e/test_main_job.py",
    "un0 serve": "tests/chaos/test_service.py",
    "un0 verify": "tests/e2e/test_main_job.py",
    "un0 grid": "tests/e2e/test_main_job.py",
    "un0 query": "tests/e2e/test_main_job.py",
    "un0 export": "tests/e2e/test_main_job.py",
    "un0 report": "tests/jobs/report/test_report_command.py",
    "un0 compact": "tests/cluster/ledger/test_compaction.py",
    "un0 doctor": "tests/jobs/test_doctor_stores.py",
    "un0 bench": "tests/jobs/cli/test_bench_command.py",
    "un0 calibrate": "tests/cluster/test_calibration.py",
    "un0 fleet": "tests/jobs/cli/test_fleet_command.py",
    "un0 explain": "tests/jobs/test_explain.py",
    "un0 token": "tests/jobs/cli/test_token_command.py",
    "un0 train": "tests/e2e/test_own_images.py",
    "un0 evaluate": "tests/e2e/test_own_images.py",
    "un0 simulate": "tests/jobs/cli/test_simulate_command.py",
    "un0 plan": "tests/jobs/plan/test_plan_command.py",
    "python -m un0.train.examples": "tests/e2e/test_own_images.py",
}

#: Only parsed, because running them takes what a test does not have.
NEEDS = {
    "make demo": "a virtual environment of its own and the package index",
    "make test": "it is what runs this",
    "make setup": "the package index",
    "make s3": "it is `un0 dev s3` once set up",
    "python benchmarks/": "a quiet machine, a GPU, or minutes to hours",
    "python docs/generate_cli.py": "writes the page that another test compares",
}

USAGE = Path("docs/reference/cli.md")  # generated: not commands but how they are written
COMMANDS = [(page, line) for page in pages() if page != USAGE for line in shell_commands(page)]


@pytest.mark.parametrize("page", sorted({page for page, _ in COMMANDS}), ids=str)
def test_documented_commands_parse(page: Path) -> None:
    for line in (line for of, line in COMMANDS if of == page):
        given = words(line)
        if given[0] != "un0":
            _check_script(given)
            continue
        command, context, rest = _resolve(given[1:])
        try:
            command.make_context(command.name, rest, parent=context)
        except Exception as error:
            pytest.fail(f"{page}: {line}: {error}")


@pytest.mark.parametrize("page", pages(), ids=str)
def test_mentioned_commands_have_their_options(page: Path) -> None:
    for text in inline_commands(page):
        given = words(text)
        if given[0] != "un0":
            _check_script(given)
        elif given[1:] and given[1] != "COMMAND":
            command, context, rest = _resolve(given[1:])
            known = {name for p in command.get_params(context) for name in p.opts}
            options = {word.partition("=")[0] for word in rest if word.startswith("--")}
            assert options <= known, f"{page}: {text}"


def test_every_command_is_run_by_a_test_or_needs_what_it_lacks() -> None:
    for name, path in RUN_BY.items():
        word = name.split()[1] if name.startswith("un0 ") else name.split()[-1]
        text = (ROOT / path).read_text()
        assert f'"{word}"' in text or f"{word} " in text, f"{path} no longer runs {name}"
    for page, line in COMMANDS:
        plain = " ".join(words(line))
        known = plain in RUN_HERE or any(plain.startswith(name) for name in [*RUN_BY, *NEEDS])
        assert known, f"{page}: {line}: add it to RUN_HERE, RUN_BY or NEEDS"


@pytest.mark.parametrize("line", RUN_HERE)
def test_a_quick_command_runs(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert any(" ".join(words(c)) == line for _, c in COMMANDS), "no longer in the documentation"
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, line.split()[1:])
    assert done.exit_code == 0, done.output
    assert done.output.strip()


@cache
def _root() -> Any:
    return typer.main.get_command(app)


def _resolve(given: list[str]) -> tuple[Any, Any, list[str]]:
    """The command that the words name, its parent's context, and its own words."""
    command = _root()
    context = command.make_context("un0", [], resilient_parsing=True)
    while hasattr(command, "list_commands") and given and not given[0].startswith("-"):
        inner = command.resolve_command(context, given[:1])[1]
        assert inner is not None, f"un0 has no command {given[0]!r}"
        parent, command, given = context, inner, given[1:]
        context = type(context)(command, info_name=command.name, parent=parent)
    return command, context, given


def _check_script(given: list[str]) -> None:
    """A target of the Makefile, or a script that has the options named; nothing is run."""
    if given[0] == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert {word for word in given[1:] if "=" not in word} <= set(targets)
        return
    module = given[1] == "-m"
    script = ROOT / (f"{given[2].replace('.', '/')}.py" if module else given[1])
    assert script.exists() or "*" in str(script), f"{script} does not exist"
    text = "".join(_sources(script))
    for option in (word for word in given if word.startswith("--")):
        assert f'"{option}"' in text, f"{script.name} has no option {option}"


def _sources(script: Path) -> Iterator[str]:
    """The script, and what it imports of its own folder."""
    text = script.read_text()
    yield text
    for name in re.findall(r"^(?:from|import) (?:benchmarks\.)?(\w+)", text, re.MULTILINE):
        beside = script.with_name(f"{name}.py")
        if beside.exists() and beside != script:
            yield beside.read_text()
