"""README and the pages of docs/: their commands, links and tables."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
_STARTS = ("un0 ", "make ", "python benchmarks/", "python docs/", "python -m un0.")


def pages() -> list[Path]:
    """Every page, README first; relative to the project's root."""
    listed = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page.relative_to(ROOT) for page in listed]


def shell_commands(page: Path) -> Iterator[str]:
    """Commands in the page's code blocks, one a line, as they stand there."""
    for token in MarkdownIt().parse((ROOT / page).read_text()):
        if token.type in ("fence", "code_block"):
            lines = token.content.replace("\\\n", " ").splitlines()
            yield from (line.strip() for line in lines if line.strip().startswith(_STARTS))


def inline_commands(page: Path) -> Iterator[str]:
    """Commands in the page's sentences and tables, which may be shortened ("…")."""
    for token in MarkdownIt().enable("table").parse((ROOT / page).read_text()):
        for child in token.children or []:
            if child.type == "code_inline" and child.content.startswith(_STARTS):
                yield " ".join(child.content.split())


def words(command: str) -> list[str]:
    """The words of a command line, without its comment and what stands for more of it."""
    return [word for word in shlex.split(command, comments=True) if word not in ("…", "...")]


def links(page: Path) -> Iterator[str]:
    """Targets within the project: of links, images, and paths under docs/ in the text."""
    for token in MarkdownIt().enable("table").parse((ROOT / page).read_text()):
        for child in token.children or []:
            target = child.attrGet("href") or child.attrGet("src")
            if isinstance(target, str) and not re.match(r"[a-z]+:", target):
                yield target


def anchors(page: Path) -> set[str]:
    """What the page's headings can be linked by, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}
