"""What owners may ask for in a day: joules, images, jobs. Kept in the store, checked at submission.

A day is a UTC day. What a job asks for is written down before it is added up, so that of two
submissions at once both may be refused, but never both accepted beyond the limit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal

from pydantic import Field, PositiveInt

from cluster.errors import NotFound
from cluster.storage.commit import parse_record
from cluster.storage.layout import LIMITS, usage_of
from cluster.storage.object_store import ObjectStore
from cluster.types import SCHEMA_VERSION, Record
from jobs.format import joules
from jobs.service.api import OverLimit

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ANYBODY = "*"  # the limits of owners that have none of their own


class OwnerLimits(Record):
    """Of one owner and UTC day; None: as much as they like."""

    joules_a_day: Positive | None = None
    images_a_day: PositiveInt | None = None
    jobs_a_day: PositiveInt | None = None


class Limits(Record):
    """``service/limits.json``, which an administrator writes. owners: ``*`` is for all others."""

    schema_version: Literal[1] = SCHEMA_VERSION
    owners: dict[str, OwnerLimits]


class Asked(Record):
    """What one job asks for. energy_j: as quoted, or its budget if that is less; None: unknown."""

    schema_version: Literal[1] = SCHEMA_VERSION
    job_id: str
    images: PositiveInt
    energy_j: float | None


def limits_of(store: ObjectStore, owner: str) -> OwnerLimits | None:
    """The owner's limits; None where there are none. Raises Fatal for a file that is damaged."""
    try:
        owners = parse_record(Limits, LIMITS, store.get(LIMITS)).owners
    except NotFound:
        return None
    return owners.get(owner) or owners.get(ANYBODY)


def admit(store: ObjectStore, owner: str, limits: OwnerLimits, asked: Asked, at: datetime) -> None:
    """Count the job among what the owner asks for today. Raises OverLimit, and then counts nothing.

    Counting a job again changes nothing.
    """
    if limits.joules_a_day is not None and asked.energy_j is None:
        raise OverLimit(
            f"owner {owner!r} may ask for {joules(limits.joules_a_day)} a day, and what this job "
            "takes is not known: give it an energy_budget, or run `un0 calibrate --store`"
        )
    day = at.astimezone(UTC).date()
    prefix = usage_of(day, owner)
    key = f"{prefix}{asked.job_id}.json"
    store.put(key, asked.model_dump_json().encode())
    refused = _over(owner, limits, list(_asked(store, prefix)), asked)
    if refused is not None:
        store.delete(key)
        frees = datetime.combine(day + timedelta(days=1), datetime.min.time(), UTC)
        raise OverLimit(
            f"{refused}; it frees at {frees:%Y-%m-%dT%H:%MZ}, with the next UTC day; or ask who "
            f"keeps {LIMITS} in the store for more"
        )


def retract(store: ObjectStore, owner: str, job_id: str, at: datetime) -> None:
    """The job was counted, and is not made after all."""
    store.delete(f"{usage_of(at.astimezone(UTC).date(), owner)}{job_id}.json")


def _over(owner: str, limits: OwnerLimits, all_asked: list[Asked], asked: Asked) -> str | None:
    """What is too much, in words; None if nothing is."""
    images = sum(job.images for job in all_asked)
    energy_j = sum(job.energy_j or 0.0 for job in all_asked)
    if limits.jobs_a_day is not None and len(all_asked) > limits.jobs_a_day:
        return (
            f"owner {owner!r} may submit {limits.jobs_a_day:,} jobs a day and has submitted "
            f"{len(all_asked) - 1:,} today"
        )
    if limits.images_a_day is not None and images > limits.images_a_day:
        return (
            f"owner {owner!r} may ask for {limits.images_a_day:,} images a day, has asked for "
            f"{images - asked.images:,} today, and this job is of {asked.images:,}"
        )
    if limits.joules_a_day is not None and energy_j > limits.joules_a_day:
        own_j = asked.energy_j or 0.0
        return (
            f"owner {owner!r} may ask for {joules(limits.joules_a_day)} a day, has asked for "
            f"{joules(energy_j - own_j)} today, and this job takes {joules(own_j)}"
        )
    return None


def _asked(store: ObjectStore, prefix: str) -> Iterator[Asked]:
    for info in store.list(prefix):
        with suppress(NotFound):
            yield parse_record(Asked, info.key, store.get(info.key))
