"""Plays a script in a process that sees the NVML stub's GPUs, as does a Ray node begun there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.nvml_stub import NvmlStub


def play(script: str, stub: NvmlStub, *arguments: str) -> Any:
    """What the script prints last, as JSON. It may import ``tests.support`` and the project."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env={
            **{k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "CUDA_"))},
            **stub.env(),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    try:
        return json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        raise AssertionError(f"{script} printed nothing: {done.stdout}{done.stderr}") from None
