"""Bulk generation jobs: what users touch. ``from jobs import JobSpec, generate``."""

from jobs.result import JobResult
from jobs.service import generate, resume
from jobs.spec import JobSpec

__all__ = ["JobResult", "JobSpec", "generate", "resume"]
