"""How much property tests try: little in ``make test``, everything in ``make test-slow``."""

from __future__ import annotations

import os

from hypothesis import settings

VARIABLE = "UN0_HYPOTHESIS"
FAST_EXAMPLES = 20
PROFILE = os.environ.get(VARIABLE, "fast")

# No test judges by the clock: machines are busy.
settings.register_profile("full", deadline=None)
settings.register_profile("fast", deadline=None, max_examples=FAST_EXAMPLES)


def examples(full: int) -> int:
    """The ``max_examples`` of a test that is to try ``full`` in all, under the profile in use."""
    return full if PROFILE == "full" else min(full, FAST_EXAMPLES)
