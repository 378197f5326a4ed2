"""What commands that ask the job service share: the service, its words, and how a job is shown."""

from __future__ import annotations

import os
import shlex
from typing import TYPE_CHECKING, Literal

from cluster.states import JobState
from jobs.cli.exits import EXIT_FAILED
from jobs.cli.options import show_json
from jobs.defaults import DEFAULT_STORE
from jobs.format import UNKNOWN, bounded, duration, joules, quality_words
from jobs.service.store_options import StoreOptions

if TYPE_CHECKING:
    from jobs.service.api import JobService
    from jobs.service.views import JobEnergy, JobView, Quote
    from jobs.spec import JobSpec

Verb = Literal["cancel", "pause", "resume"]
SERVER, TOKEN = "UN0_SERVER", "UN0_TOKEN"


class StoreArguments(StoreOptions):
    """The options of a command that say which store is meant."""

    def words(self) -> list[str]:
        """The same options, for a command to paste."""
        words = [] if self.store == DEFAULT_STORE else ["--store", self.store]
        for name in ("endpoint_url", "sse", "sse_kms_key"):
            if value := getattr(self, name):
                words += [f"--{name.replace('_', '-')}", value]
        return [*words, "--single-writer"] if self.single_writer else words


def service_of(where: StoreArguments, *, writes: bool = False) -> JobService:
    """The job service that the command is to ask: of the store, or of the server that the
    environment names."""
    from jobs.service.connect import open_service

    server, token = os.environ.get(SERVER) or None, os.environ.get(TOKEN) or None
    return open_service(where, server=server, token=token, writes=writes)


def speaks_http() -> bool:
    """Whether commands ask a server, and no store."""
    return bool(os.environ.get(SERVER))


def is_submitted(where: StoreArguments, job_id: str) -> bool:
    """Whether the service has the job. Of none that exists, no."""
    if speaks_http():
        return True
    from cluster.storage.intents import newest_intent

    return newest_intent(where.opened(probe=False), job_id) is not None


def images_words(spec: JobSpec) -> str:
    """What the spec asks for; of rows, how many there are is not in it."""
    if spec.count is not None or spec.inputs is None:
        return f"{spec.count:,} images"
    return f"the images of {spec.inputs.source}"


def user_here() -> str:
    """Who asks."""
    from jobs.service.prepare import user_here

    return user_here()


def asked(verb: Verb, service: JobService, job_id: str, reason: str, *, as_json: bool) -> None:
    """Ask for it, and show the job as it is then."""
    job: JobView = getattr(service, verb)(job_id, by=user_here(), reason=reason)
    if as_json:
        show_json(job.model_dump(mode="json"))
    else:
        print(f"{job.job_id}: {state_words(job)}")


def paste(command: str, job_id: str, where: StoreArguments) -> str:
    """``un0 COMMAND JOB`` with the options of this store."""
    return shlex.join(["un0", command, job_id, *where.words()])


def exit_code_of(state: JobState) -> int:
    """Of a command that has waited for the job."""
    return 0 if state == JobState.COMPLETED else EXIT_FAILED


def state_words(job: JobView) -> str:
    """``queued: 2 jobs go before it``."""
    words = job.state.replace("_", " ")
    if job.reason is None:
        return words
    said = job.reason.message  # "paused by ann: lunch" needs no "paused" before it
    return said if said.startswith(f"{words} ") else f"{words}: {said}"


def quote_words(quote: Quote) -> str:
    """``1.2 kJ (1 kJ to 1.4 kJ) estimated, in 3 min 05 s``."""
    if quote.energy_j is None:
        return UNKNOWN
    figures = bounded(quote.energy_j, quote.energy_low_j, quote.energy_high_j)
    words = f"{figures} {quality_words(quote.quality)}"
    if quote.seconds is not None:
        words += f", in {duration(quote.seconds)}"
    return words


def energy_words(energy: JobEnergy, images: int) -> str:
    """In all and of each image, with bounds and quality."""
    if energy.energy_j is None or not images:
        return UNKNOWN
    figures = bounded(energy.energy_j, energy.low_j, energy.high_j)
    each = joules(energy.energy_j / images)
    return f"{figures} in all, {each} per image, {quality_words(energy.quality)}"


def compared(job: JobView) -> str | None:
    """What was predicted beside what was measured, by the image: a job may have been cut short."""
    quote, done = job.quote, job.counts.committed
    if quote is None or quote.energy_j is None or job.energy.energy_j is None or not done:
        return None
    predicted, measured = quote.energy_j / job.counts.total, job.energy.energy_j / done
    ratio = f", {predicted / measured:.2f} of it" if measured else ""
    return f"{joules(predicted)} per image predicted, {joules(measured)} measured{ratio}"
