"""Exit codes of the command; that of an interruption is ``jobs.listening.EXIT_INTERRUPTED``."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_INFEASIBLE = 3
