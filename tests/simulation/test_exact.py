"""Our policy beside the exact optimum of small cases."""

from __future__ import annotations

import importlib.util
import statistics
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def scheduler_exact() -> Any:
    spec = importlib.util.spec_from_file_location(
        "scheduler_exact", ROOT / "benchmarks/scheduler_exact.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_half_of_small_cases_are_within_five_percent_of_the_optimum() -> None:
    cases = list(scheduler_exact().cases(seed=5000, count=25))
    assert statistics.median(case.energy_over_optimum for case in cases) < 1.05
    in_time = [case.energy_over_optimum for case in cases if not case.missed]
    assert min(in_time) > 1 - 1e-6
    assert len(in_time) >= 23
