"""The HTML report in a real browser: right figures, no error, no request."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import escape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cluster.storage.open import open_store
from jobs.report.build import build_report
from jobs.report.html import page
from tests.support import jobfactory
from tests.support.chromium import CHROMIUM, visit
from tests.support.cli import un0, un0_json
from tests.support.ledgers import fleet, row, write_log

RATES = ("--carbon", "FR", "--pue", "1.1", "--price", "0.2", "--currency", "EUR")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here; on Debian: apt-get install chromium"
)


@dataclass
class Page(HTMLParser):
    """Figures of a page: by name, and in tables by table, key and name."""

    figures: dict[tuple[str, ...], set[str | None]] = field(default_factory=dict)
    tags: set[str] = field(default_factory=set)
    _table: str = ""
    _key: str = ""

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.add(tag)
        if tag == "table":
            self._table = found["data-table"] or ""
        elif tag == "tr":
            self._key = found.get("data-key") or ""
        elif tag == "data":
            place = (self._table, self._key, found["data-figure"] or "")
            self.figures.setdefault(place, set()).add(found.get("value"))

    def handle_endtag(self, tag: str) -> None:
        if tag == "table":
            self._table = self._key = ""


def parsed(html: str) -> Page:
    found = Page()
    found.feed(html)
    return found


def value_at(figures: Any, path: str) -> Any:
    for name in path.split("."):
        figures = figures[name]
    return figures


def assert_same(place: tuple[str, ...], shown: set[str | None], figures: Any) -> None:
    value = value_at(figures, place[-1])
    assert shown == {None if value is None else repr(value)}, place


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = str(tmp_path_factory.mktemp("store"))
    write_log(open_store(path, probe=False), fleet(19))  # on the 18th day a meter is away
    return path


@pytest.fixture(scope="module")
def html(store: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    args = ("report", "--store", store, "--by", "day", *RATES, "--format", "html")
    assert un0(*args, "--out", str(path)).returncode == 0
    return path


@needs_chromium
def test_the_browser_shows_the_figures_of_the_json(html: Path, store: str) -> None:
    seen = visit(html)
    assert seen.console == []
    assert seen.requests == []
    by = {
        name: un0_json("report", "--store", store, "--by", name, *RATES)
        for name in ("day", "hardware", "job", "node")
    }
    tables = {"by": "day", "hardware": "hardware", "jobs": "job", "nodes": "node"}
    rows = {
        (table, str(row["key"])): row for table, name in tables.items() for row in by[name]["rows"]
    }
    moments = {f"{row['key']}T00:00:00": row for row in by["day"]["rows"]}
    figures = parsed(seen.dom).figures
    for place, shown in figures.items():
        table, key, _ = place
        if table in tables:
            assert_same(place, shown, rows[table, key])
        elif table == "timeline":
            assert_same(place, shown, moments[key])
        else:
            assert_same(place, shown, by["day"])
    shown_tables = {table for table, _, _ in figures}
    assert shown_tables == {"", "buckets", "boundaries", "timeline", *tables}
    for path in ("images", "j_per_image_low", "carbon_low_g", "cost_low", "idle_share"):
        assert ("", "", path) in figures
    assert {key for table, key, _ in figures if table == "nodes"} == {
        "gpu-01", "gpu-02", "gpu-03", "cpu-01",
    }  # fmt: skip


@needs_chromium
def test_what_a_page_says_and_asks_for_would_be_noticed(tmp_path: Path) -> None:
    path = tmp_path / "other.html"
    path.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("boo")</script>')
    seen = visit(path)
    assert any("boo" in line for line in seen.console)
    assert seen.requests == ["http://127.0.0.1:9/x.png"]


@needs_chromium
@pytest.mark.parametrize(("width", "fits"), [(1200, True), (768, True), (360, True), (120, False)])
def test_the_page_fits_wide_and_narrow_windows(
    width: int, fits: bool, html: Path, tmp_path: Path
) -> None:
    frame = tmp_path / "frame.html"
    frame.write_text(
        f'<iframe width="{width}" height="900" frameborder="0" srcdoc="{escape(html.read_text())}">'
        "</iframe><script>onload = () => document.body.dataset.width ="
        "document.querySelector('iframe').contentDocument.documentElement.scrollWidth</script>"
    )
    found = re.search(r'data-width="(\d+)"', visit(frame).dom)
    assert found is not None
    assert (int(found[1]) <= width) is fits


def test_the_page_needs_nothing_but_itself(html: Path) -> None:
    text = html.read_text()
    assert parsed(text).tags.isdisjoint({"script", "iframe", "img", "object", "embed", "audio"})
    assert "http:" not in text
    assert "https:" not in text
    assert "@import" not in text
    assert "url(" not in text
    assert "default-src 'none'" in text


def test_names_are_text_not_markup(memory_dir: Path) -> None:
    store = open_store(str(memory_dir), probe=False)
    nasty = '<script>alert("1")</script>&amp;'
    write_log(store, [row("job", 5, images=1, hw_name=nasty, job_id=nasty), row("idle", 3)])
    text = page(build_report(store, by="hardware", panels=True))
    assert "<script" not in text
    keys = {key for _, key, _ in parsed(text).figures}
    assert nasty in keys


def test_an_empty_store_and_one_without_a_log_have_a_page(memory_dir: Path) -> None:
    store = open_store(str(memory_dir), probe=False)
    assert "Nothing recorded" in page(build_report(store, panels=True))
    jobfactory.write_job(store, jobfactory.workload())
    text = page(build_report(store, panels=True))
    assert "From commits: no idle, overhead or wasted figures" in text
    figures = parsed(text).figures
    assert figures["", "", "j_per_image"] == {"0.6"}
    assert figures["", "", "j_per_image_high"] == {"1.8"}
    assert ("", "", "idle_share") not in figures
