"""The planner's optimum is that of PyPSA networks, in every case that both can state."""

from __future__ import annotations

import importlib.util

import pytest

from tests.benchmarks.test_gpu_benchmarks import run


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("pypsa") is None, reason="needs pypsa")
def test_the_planner_finds_the_optimum_of_pypsa() -> None:
    rows = run("planner_pypsa.py", "--repeats", "1")["rows"]
    assert len(rows) >= 8
    for row in rows:
        assert row["apart"] <= 3e-5, row  # the gaps of both
