"""Compiled code that is kept, and when it is not used again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

MAIN = """
from parts import part
from un0.jit import compiled

@compiled
def whole(x):
    return part(x) + 1

print(whole(1), sum(whole.stats.cache_hits.values()))
"""
PART = """
from un0.jit import compiled

@compiled
def part(x):
    return 10 * x
"""


def run(folder: Path) -> str:
    done = subprocess.run(
        [sys.executable, str(folder / "main.py")],
        env={**os.environ, "PYTHONPATH": f"{folder}:{Path.cwd()}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_a_change_to_what_is_called_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text(MAIN)
    (tmp_path / "parts.py").write_text(PART)
    assert run(tmp_path) == "11 0"
    assert run(tmp_path) == "11 1"
    (tmp_path / "parts.py").write_text(PART.replace("10", "20"))
    assert run(tmp_path) == "21 0"
