"""The benchmarks that want a GPU or another package run, skip and print rows as they say."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *arguments: str) -> Any:
    env = os.environ | {"PYTHONPATH": str(BENCHMARKS.parent)}
    ran = subprocess.run(
        [sys.executable, str(BENCHMARKS / name), *arguments, "--json"],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    return json.loads(ran.stdout)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.slow
def test_without_a_gpu_the_gpu_benchmark_skips() -> None:
    assert run("engine_gpu.py") == []


@pytest.mark.slow
def test_the_gpu_benchmark_checks_itself_on_a_cpu() -> None:
    rows = run(
        "engine_gpu.py", "--device", "cpu", "--n", "64", "--batch", "8", "--window", "0.05",
        "--peers", "eager", "--rounds", "1",
    )  # fmt: skip
    eager, ours = rows
    assert eager["engine"] == "eager"
    assert ours["engine"].startswith("un0-")
    assert ours["images_per_s"] > 0
    assert ours["ratio_to_eager"] == pytest.approx(ours["images_per_s"] / eager["images_per_s"])
    assert ours["max_level_error"] <= 1
    assert ours["energy_quality"] in ("estimated", "measured_counter")


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("diffusers") is None, reason="needs diffusers")
def test_conventional_generators() -> None:
    rows = run("conventional.py", "--size", "32", "--rounds", "1", "--batches", "1")
    ours, *peers = rows
    assert ours["n"] == 4096
    assert [row["evaluations"] for row in peers] == [1000, 50, 1]
    for row in peers:
        assert row["fid"]
        assert row["seconds_per_image"] == pytest.approx(
            peers[-1]["seconds_per_image"] * row["evaluations"]
        )
        assert row["energy_low_j"] is None or row["energy_low_j"] <= row["energy_per_image_j"]
    assert peers[0]["seconds_ratio_to_un0"] > 100
