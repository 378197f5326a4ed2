"""Bulk generation jobs: what users touch. ``from jobs import JobSpec, generate``."""

from jobs.service import JobResult, generate, resume
from jobs.spec import JobSpec

__all__ = ["JobResult", "JobSpec", "generate", "resume"]
