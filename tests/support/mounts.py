"""Python code that runs on a small file system of its own, in a mount namespace of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def run_on_tmpfs(path: Path, options: str, code: str) -> str:
    """The output of the code, run while a tmpfs with these options is mounted at the path."""
    mount = f"mount -t tmpfs -o {options} tmpfs {path}"
    shell = f'{mount} || exit 77; exec {sys.executable} -c "$CODE"'
    try:
        done = subprocess.run(
            ["unshare", "--mount", "--map-root-user", "sh", "-c", shell],
            env=os.environ | {"CODE": code},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        pytest.skip("no unshare here")
    if done.returncode in (1, 77) and "Traceback" not in done.stderr:
        pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    return done.stdout
