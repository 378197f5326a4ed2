"""Actors on Ray."""

import os

# Ray takes a SIGTERM for a crash of its driver. It reads this when it is imported.
os.environ.setdefault("RAY_DISABLE_FAILURE_SIGNAL_HANDLER", "1")
