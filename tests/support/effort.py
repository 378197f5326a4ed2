"""How much costly tests try: little in ``make test``, everything in ``make test-slow``."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import settings

VARIABLE = "UN0_HYPOTHESIS"
FAST_EXAMPLES = 20
PROFILE = os.environ.get(VARIABLE, "fast")

# No test judges by the clock: machines are busy.
settings.register_profile("full", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=FAST_EXAMPLES)


def examples(full: int, fast: int = FAST_EXAMPLES) -> int:
    """The ``max_examples`` of a test that is to try ``full`` in all, under the profile in use."""
    return full if PROFILE == "full" else min(full, fast)


def costly(*cases: Any, fast: int = 2) -> list[Any]:
    """Cases of a parametrised test, of which all but the first ``fast`` are slow."""
    return [*cases[:fast], *(_slow(case) for case in cases[fast:])]


def _slow(case: Any) -> Any:
    values = case if isinstance(case, tuple) else (case,)
    return pytest.param(*values, marks=pytest.mark.slow)
