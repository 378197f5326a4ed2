"""Headless Chromium, and what a page does in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-extensions", "--hide-scrollbars", "--enable-logging=stderr",
    "--host-resolver-rules=MAP * ~NOTFOUND",
)  # fmt: skip


@dataclass(frozen=True)
class Visit:
    """dom: the page's HTML in the end. requests: URLs that it asked for, beyond itself."""

    dom: str
    console: list[str]
    requests: list[str]


def visit(page: Path) -> Visit:
    """Open a file and note what it says on the console and wants of the network."""
    with tempfile.TemporaryDirectory(prefix="un0-chromium-") as home:
        log = Path(home, "net.json")
        done = _run(home, f"--log-net-log={log}", "--dump-dom", page.as_uri())
        console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
        return Visit(done.stdout, console, _requests(json.loads(log.read_text())))


def screenshot(page: Path, picture: Path, width: int, height: int, *flags: str) -> None:
    """A picture of the page in a window of that size."""
    with tempfile.TemporaryDirectory(prefix="un0-chromium-") as home:
        size = f"--window-size={width},{height}"
        _run(home, size, *flags, f"--screenshot={picture}", page.as_uri())


def _run(home: str, *args: str) -> subprocess.CompletedProcess[str]:
    assert CHROMIUM is not None
    command = [CHROMIUM, *_FLAGS, f"--user-data-dir={home}/profile", *args]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done


def _requests(log: dict) -> list[str]:  # type: ignore[type-arg]
    """What pages asked for; the browser's own requests have no origin."""
    started = log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    jobs = [e["params"] for e in log["events"] if e["type"] == started and "params" in e]
    return [job["url"] for job in jobs if job.get("initiator", "not an origin") != "not an origin"]
