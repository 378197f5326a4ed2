"""The verbs of the job service, as command line, HTTP and Python client have them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from cluster.errors import UserError
from jobs.service.views import (
    PAGE_SIZE,
    EventView,
    JobFilter,
    JobPage,
    JobView,
    Quote,
    Results,
)
from jobs.spec import JobSpec


class NoSuchJob(UserError):
    """The store has no job of this id. By HTTP 404."""


class Conflict(UserError):
    """The job is in a state in which that cannot be done any more. By HTTP 409."""


class KeyReused(UserError):
    """The idempotency key belongs to another request. By HTTP 422."""


class KeyInFlight(UserError):
    """A request with the same idempotency key is being carried out. By HTTP 409; try again."""


class OverLimit(UserError):
    """The owner's budget or quota does not allow it now. By HTTP 429."""


class JobService(Protocol):
    """All raise UserError for what the caller can fix, and ClusterError for what a store does.

    by: who asks, for the history. Cancel, pause and resume of a job that is so already change
    nothing, and return it.
    """

    def submit(self, spec: JobSpec, *, by: str, idempotency_key: str | None = None) -> JobView:
        """Write the job, for a server to run. A repetition with the same key returns the job that
        the first call made. Raises KeyReused, KeyInFlight, OverLimit."""
        ...

    def quote(self, spec: JobSpec) -> Quote:
        """What the job would take. Writes nothing."""
        ...

    def status(self, job_id: str) -> JobView:
        """The job now. Raises NoSuchJob."""
        ...

    def jobs(self, wanted: JobFilter, page_size: int = PAGE_SIZE, page_token: str = "") -> JobPage:
        """A page of the jobs, the newest first. Raises UserError for a token that is none."""
        ...

    def cancel(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        """End the job for good; what is committed stays. Raises NoSuchJob, Conflict."""
        ...

    def pause(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        """Stop running it, until ``resume``. Raises NoSuchJob, Conflict."""
        ...

    def resume(self, job_id: str, *, by: str, reason: str = "") -> JobView:
        """Run it again. Raises NoSuchJob, Conflict."""
        ...

    def results(self, job_id: str) -> Results:
        """Where its images are, in any state. Raises NoSuchJob."""
        ...

    def uris(self, job_id: str) -> Iterator[str]:
        """The addresses of the committed Parquet files, by shard. Raises NoSuchJob."""
        ...

    def events(self, job_id: str, after: int = 0) -> list[EventView]:
        """Its history after the event of this id. Raises NoSuchJob."""
        ...
