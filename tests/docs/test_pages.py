"""The documentation agrees with the project: links, named tests, generated pages."""

from __future__ import annotations

import re
import runpy
import subprocess
from collections import defaultdict
from pathlib import Path

import pytest

from tests.support.pages import ROOT, anchors, links, pages


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_lead_somewhere(page: Path) -> None:
    for target in links(page):
        path, _, anchor = target.partition("#")
        found = ((ROOT / page).parent / path).resolve() if path else ROOT / page
        assert found.exists(), f"{page} links to {target}, which does not exist"
        if anchor:
            assert anchor in anchors(found.relative_to(ROOT)), f"{page}: no heading for {target}"


def test_pages_that_code_names_exist() -> None:
    folders = ["un0", "cluster", "jobs", "tests", "benchmarks", "infra", "README.md", "docs"]
    command = ["grep", "-rnoE", "--include=*.py", "--include=*.md", "--include=*.yaml"]
    command += [r"\bdocs/[A-Za-z0-9_/.-]+\.(md|py|png)", *folders]
    named = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for line in named.splitlines():
        file, number, path = line.split(":", 2)
        assert (ROOT / path).exists(), f"{file}:{number} names {path}, which does not exist"


@pytest.mark.parametrize("page", [p for p in pages() if p.parts[0] == "docs"], ids=str)
def test_every_page_is_in_the_index(page: Path) -> None:
    listed = {(ROOT / "docs" / target.partition("#")[0]).resolve() for target in links(INDEX)}
    assert page == INDEX or not listed.isdisjoint({ROOT / page, (ROOT / page).parent})


def test_the_index_lists_each_page_once() -> None:
    targets = list(links(INDEX))
    assert len(targets) == len(set(targets))


def test_the_command_reference_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT / "docs/generate_cli.py"))["render"]()
    written = (ROOT / "docs/reference/cli.md").read_text()
    assert written == made, "run: python docs/generate_cli.py"


def test_the_tests_named_in_environments_exist() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"^ *(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE):
            places[name].append(str(file.relative_to(ROOT)))
    text = (ROOT / "docs/reference/environments.md").read_text()
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) > 100
    for path, name in named:
        assert (ROOT / path).exists(), f"{path}::{name} is now in {places[name]}"
        assert not name or path in places[name], f"{path}::{name} is now in {places[name]}"
    rows = [line for line in text.splitlines() if line.startswith("| ") and "| test |" not in line]
    assert all("`tests/" in row for row in rows), "a row without a test"


INDEX = Path("docs/README.md")
