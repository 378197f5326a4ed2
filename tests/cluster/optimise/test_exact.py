"""Our policy beside the exact optimum of small cases."""

from __future__ import annotations

import statistics

import pytest

from tests.support.benchmarks import benchmark


@pytest.mark.slow
def test_half_of_small_cases_are_within_five_percent_of_the_optimum() -> None:
    cases = list(benchmark("scheduler_exact").cases(seed=5000, count=25))
    assert statistics.median(case.energy_over_optimum for case in cases) < 1.05
    in_time = [case.energy_over_optimum for case in cases if not case.missed]
    assert min(in_time) > 1 - 1e-6
    assert len(in_time) >= 23
