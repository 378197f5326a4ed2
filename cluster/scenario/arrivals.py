"""The jobs of a scenario, and when they are submitted."""

from __future__ import annotations

from dataclasses import dataclass

from cluster.scheduler.request import JobRequest


@dataclass(frozen=True)
class Arrival:
    """A job, and when it is submitted. Its deadline is on the same clock."""

    at_s: float
    job: JobRequest
