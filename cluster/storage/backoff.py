"""Time between tries: exponential with full jitter, bounded."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Before try n (from 1) wait a random share of ``min(cap_s, base_s * 2**n)``.

    ``sleep`` takes seconds; tests replace it to run without waiting.
    """

    attempts: int = 6
    base_s: float = 0.1
    cap_s: float = 5.0
    sleep: Callable[[float], None] = time.sleep

    def tries(self) -> Iterator[int]:
        """0, 1, ... attempts - 1, having slept before each but the first."""
        for attempt in range(self.attempts):
            if attempt:
                self.sleep(random.uniform(0, min(self.cap_s, self.base_s * 2**attempt)))
            yield attempt
