"""What the command line prints: whole words at 80 columns, one line where it cannot print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table

from cluster.storage.open import open_store
from jobs.cli.main import main
from jobs.cli.options import plain_table, show_table
from tests.support import jobfactory
from un0 import list_models

PRINT = (
    "import sys; from jobs.output import with_output; "
    "sys.exit(with_output(lambda: print('é\\udcff', 'x' * 100_000)))"
)


def un0(monkeypatch: pytest.MonkeyPatch, *args: str) -> None:
    monkeypatch.setattr(sys, "argv", ["un0", *args])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 0


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output as a terminal of 80 columns."""
    for name, value in {"FORCE_COLOR": "1", "COLUMNS": "80", "TERM": "dumb"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


@pytest.mark.usefixtures("terminal")
def test_job_ids_and_model_names_are_whole_at_80_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = open_store(str(tmp_path))
    ids = [f"20261128T17{i:02d}00-{'abcdef'[i]}12345" for i in range(3)] + ["a-name-" + "x" * 30]
    for job_id in ids:
        jobfactory.submit(store, jobfactory.workload(job_id))
    un0(monkeypatch, "jobs", "--store", str(tmp_path))
    un0(monkeypatch, "models")
    lines = printed(capsys)
    words = {word for line in lines for word in line.split()}
    assert words >= {*ids, *(model.name for model in list_models())}
    assert max(map(len, lines)) <= 80
    assert any("Too narrow for: submitted (UTC)" in line for line in lines)


@pytest.mark.usefixtures("terminal")
def test_less_important_columns_give_way_and_none_is_cut(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = plain_table("id", "note", "where", "why", typed=("id",), right=("where",))
    table.add_row("one two " + "i" * 30, "a note in several words", "p" * 30, "w" * 12)
    show_table(table, give_way=("where", "why"))
    lines = printed(capsys)
    text = " ".join(" ".join(lines).split())
    assert "one two " + "i" * 30 in text
    assert "w" * 12 in text
    assert "a note in several words" in text
    assert "Too narrow for: where (--json has all)." in text
    assert "…" not in text
    assert max(map(len, lines)) <= 80


@pytest.mark.usefixtures("terminal")
def test_tables_below_each_other_line_up(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("short", "a-longer-word"):
        table = Table(box=None, padding=(0, 2), show_header=False)
        table.add_column("name", min_width=20)
        table.add_column("value")
        table.add_row(word, "here")
        show_table(table)
    first, second = printed(capsys)
    assert first.index("here") == second.index("here")


@pytest.mark.usefixtures("terminal")
def test_a_word_longer_than_the_terminal_is_still_whole(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = plain_table("id", "state", typed=("id",))
    table.add_row("i" * 100, "running")
    show_table(table, give_way=("state",))
    assert any("i" * 100 in line for line in printed(capsys))


def run(
    code: str, stdout: object = subprocess.PIPE, **env: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        stdout=stdout,  # type: ignore[arg-type]
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "", **env},
        timeout=120,
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_full_disk_behind_standard_output_is_one_line(unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        done = run(PRINT, full, PYTHONUNBUFFERED=unbuffered)
    assert done.returncode == 1
    assert done.stderr == "failed: cannot write to standard output: No space left on device\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_has_seen_enough_is_no_fault(unbuffered: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PRINT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={"PATH": "", "PYTHONUNBUFFERED": unbuffered},
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(120) == 1


def test_letters_that_the_encoding_lacks_are_escaped() -> None:
    done = run(PRINT, PYTHONIOENCODING="ascii", LC_ALL="C")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(r"\xe9\udcff ")


def test_a_working_directory_that_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    monkeypatch.setattr(sys, "argv", ["un0", "jobs"])
    with pytest.raises(SystemExit) as end:
        main()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: the working directory no longer exists; cd to")
    assert len(error.splitlines()) == 1


def test_a_day_is_drawn_in_letters_that_the_terminal_has(monkeypatch: pytest.MonkeyPatch) -> None:
    from jobs.cli.simulate import power_chart

    assert "█" in "".join(power_chart([1.0, 2.0], 60.0))
    monkeypatch.setattr("jobs.cli.simulate.can_show", lambda _: False)
    assert "".join(power_chart([1.0, 2.0], 60.0)).isascii()
