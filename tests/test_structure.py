"""The shape of the code: nothing that nobody uses, no file too long, no clock in the pure core.

Who may import whom is in ``pyproject.toml``, checked by ``lint-imports``.
"""

from __future__ import annotations

import ast
from pathlib import Path

import grimp
import pytest

from jobs.cli.main import COMMANDS

ROOT = Path(__file__).parents[1]
PACKAGES = ("un0", "cluster", "jobs")
ENTRY_POINTS = {  # `un0`, `python -m jobs.cli`, `python -m jobs.server.http`
    "jobs.__main__",
    "jobs.cli.__main__",
    "jobs.server.http",
}

MOST_LINES = 400  # the aim is 300
LONGER = {"cluster/actors/fleet.py": 424}

PURE = (
    "cluster/types.py",
    "cluster/states.py",
    "cluster/errors.py",
    "cluster/energy.py",
    "cluster/health.py",
    "cluster/progress.py",
    "cluster/scheduler",
    "cluster/simulation",
    "cluster/optimise",
    *(
        f"cluster/ledger/{name}.py"
        for name in (
            "attempt", "foreign", "ledger", "merge", "reading", "split", "timeline", "usage",
            "window",
        )
    ),
)  # fmt: skip
IO = {
    "asyncio", "io", "multiprocessing", "os", "pathlib", "shutil", "signal", "socket", "subprocess",
    "tempfile", "threading", "time", "urllib",
}  # fmt: skip


def sources(*places: str) -> list[Path]:
    found = []
    for place in places:
        path = ROOT / place
        assert path.exists(), f"{place} is gone: take it out of this test"
        found += [path] if path.is_file() else sorted(path.rglob("*.py"))
    return found


def test_every_file_is_imported_by_another() -> None:
    graph = grimp.build_graph(*PACKAGES, cache_dir=None)
    unused = {
        module
        for module in graph.modules
        if not module.startswith("un0")  # a library: some of it is for its users
        and not graph.find_children(module)
        and not graph.find_modules_that_directly_import(module)
    }
    lazily = {command.home.partition(":")[0] for command in COMMANDS}
    assert unused - lazily == ENTRY_POINTS


@pytest.mark.parametrize("package", PACKAGES)
def test_files_are_of_a_few_screens(package: str) -> None:
    lines = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(package)
    }
    assert {p: n for p, n in lines.items() if n > LONGER.get(p, MOST_LINES)} == {}


def test_the_pure_core_imports_nothing_that_waits_reads_or_writes() -> None:
    found = set()
    for path in sources(*PURE):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            found |= {
                (str(path.relative_to(ROOT)), name)
                for name in names
                if name.partition(".")[0] in IO
            }
    assert found == set()
