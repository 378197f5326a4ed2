"""How many requests a minute one token may make, and how often one address may fail."""

from __future__ import annotations

import math

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from cluster.clock import utc_now
from jobs.server.options import HttpOptions
from jobs.server.problems import Refusal


class Limiter:
    """Counts in this process: with several servers each has its own."""

    def __init__(self, options: HttpOptions) -> None:
        self._limits = {
            "reads": RateLimitItemPerMinute(options.reads),
            "writes": RateLimitItemPerMinute(options.writes),
            "failures": RateLimitItemPerMinute(options.failures),
        }
        self._windows = SlidingWindowCounterRateLimiter(MemoryStorage())

    def hit(self, kind: str, who: str) -> dict[str, str]:
        """Count one; the headers for the answer. Raises Refusal (429) if it is one too many."""
        limit = self._limits[kind]
        taken = self._windows.hit(limit, kind, who)
        headers = self._headers(kind, who)
        if not taken:
            raise self._refusal(kind, headers)
        return headers

    def check(self, kind: str, who: str) -> None:
        """Raises Refusal (429) if there are too many already. Counts nothing."""
        if not self._windows.test(self._limits[kind], kind, who):
            raise self._refusal(kind, self._headers(kind, who))

    def _refusal(self, kind: str, headers: dict[str, str]) -> Refusal:
        most, after = self._limits[kind].amount, headers["Retry-After"]
        detail = f"more than {most} {kind} in a minute; try again in {after} s"
        return Refusal(429, "rate_limited", detail, headers=headers)

    def _headers(self, kind: str, who: str) -> dict[str, str]:
        """``RateLimit`` as draft-ietf-httpapi-ratelimit-headers has it."""
        limit = self._limits[kind]
        stats = self._windows.get_window_stats(limit, kind, who)
        reset = max(1, math.ceil(stats.reset_time - utc_now().timestamp()))
        left = max(0, stats.remaining)
        headers = {
            "RateLimit-Policy": f'"{kind}";q={limit.amount};w=60',
            "RateLimit": f'"{kind}";r={left};t={reset}',
        }
        return headers if left else headers | {"Retry-After": str(reset)}
