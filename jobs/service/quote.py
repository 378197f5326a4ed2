"""What a job would take, by what the store knows of hardware, planned as the scheduler plans.

Pure but for ``known_profiles`` and the two that keep a quote with its job.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from pydantic import ValidationError

from cluster.errors import NotFound
from cluster.scheduler.plan import Grant, make_plan
from cluster.scheduler.policy import Policy
from cluster.scheduler.profiles import USUAL_SURPRISE, Profile
from cluster.scheduler.request import Objective, Performance
from cluster.scheduler.supply import J_PER_KWH, Demand, Offer
from cluster.storage.layout import JobLayout
from cluster.storage.object_store import ObjectStore
from cluster.storage.profiles import ProfileRecord, load_profile_records
from cluster.types import DEFAULT_ENCODING, QUALITIES, EnergyQuality
from jobs.format import joules
from jobs.service.views import Quote, QuoteBasis

logger = logging.getLogger(__name__)

#: How far a measured figure may be off for another job: three times what one window is, usually.
MEASURED_SPREAD = 3 * USUAL_SURPRISE
#: Of an estimate without bounds of its own: as a prior's of hardware in no table.
GUESS_LOW, GUESS_HIGH = 1 / 3, 3.0
_POLICY = Policy()
NOTHING_KNOWN = (
    "nothing is measured of this model at this precision on any hardware: run "
    "`un0 calibrate --store` where the jobs are to run, or run a job"
)
ONE_EACH = "one device of each hardware class was assumed: the fleet may have more of them"


@dataclass(frozen=True)
class Work:
    """What there is to do. model, encoding: their keys. deadline_s: from now. budget_j: at which it
    pauses."""

    model: str
    images: int
    shards: int
    objective: Objective = "energy"
    deadline_s: float | None = None
    encoding: str = DEFAULT_ENCODING
    budget_j: float | None = None


@dataclass(frozen=True)
class Queue:
    """The jobs that go before. works: None where there are too many to be read."""

    works: tuple[Work, ...] | None = ()


def make_quote(work: Work, known: Sequence[ProfileRecord], queue: Queue) -> Quote:
    """The quote. known: of every model; only measured points count as known of a hardware class,
    unless nothing else is known of it."""
    queue_s, notes = _queue_seconds(queue, known)
    own = [record for record in known if record.model == work.model]
    if not own:
        return _unknown(queue_s, (NOTHING_KNOWN, *notes))
    profiles = {record.hardware: _believed(record, work.encoding) for record in own}
    grants = _grants(work, profiles, queue_s or 0.0)
    rate = sum(grant.performance.images_per_s * grant.nodes for grant in grants)
    shares = _shares(work.images, grants)
    loading_s = max(profiles[grant.hardware].standby.load_s for grant in grants)
    seconds = loading_s + work.images / rate
    energy_j, low_j, high_j = _energy(grants, shares, profiles)
    if work.deadline_s is not None and (queue_s or 0.0) + seconds > work.deadline_s:
        notes = (*notes, f"it would be late: its deadline is {work.deadline_s:,.0f} s from now")
    if work.budget_j is not None and energy_j > work.budget_j:
        notes = (*notes, f"it would pause before its end, at its budget of {joules(work.budget_j)}")
    return Quote(
        energy_j=energy_j,
        energy_low_j=low_j,
        energy_high_j=high_j,
        quality=max((grant.performance.quality for grant in grants), key=QUALITIES.index),
        seconds=None if queue_s is None else queue_s + seconds,
        queue_seconds=queue_s,
        images_per_hardware=shares,
        cost=_cost(grants, profiles, seconds),
        carbon_g=_carbon(grants, shares, profiles),
        basis=tuple(
            _basis(grant, record, work.encoding)
            for grant in grants
            for record in own
            if record.hardware == grant.hardware
        ),
        notes=(*notes, ONE_EACH),
    )


def known_profiles(store: ObjectStore) -> list[ProfileRecord]:
    """What is known of hardware with any model."""
    return load_profile_records(store)


def keep_quote(store: ObjectStore, job_id: str, quote: Quote) -> None:
    """Keep the quote with its job."""
    store.put(JobLayout(job_id).quote, quote.model_dump_json().encode())


def kept_quote(store: ObjectStore, job_id: str) -> Quote | None:
    """The quote that the job was submitted with; None where there is none that can be read."""
    key = JobLayout(job_id).quote
    try:
        return Quote.model_validate_json(store.get(key))
    except NotFound:
        return None
    except ValidationError as error:
        logger.warning("%s is left out: %s", key, error.errors(include_input=False)[0]["msg"])
        return None


def _believed(record: ProfileRecord, encoding: str) -> Profile:
    """The profile of work in this encoding with its measured points alone, if there are any."""
    profile = record.profile().of(encoding)
    measured = tuple(point for point in profile.curve if point.samples)
    return replace(profile, curve=measured) if measured else profile


def _grants(work: Work, profiles: dict[str, Profile], wait_s: float) -> list[Grant]:
    """What the scheduler would run the job on, alone in a fleet with one of each."""
    rate = math.inf if work.objective == "throughput" else 0.0
    if work.deadline_s is not None and rate == 0.0:
        left_s = _POLICY.slack_share * (work.deadline_s - wait_s) - _POLICY.assignment_s
        left_s -= max(profile.standby.load_s for profile in profiles.values())
        rate = _POLICY.reserve * work.images / max(left_s, _POLICY.assignment_s)
    demand = Demand(
        work.model, work.objective, rate, work.images, patient=False, shards=work.shards,
        encoding=work.encoding,
    )  # fmt: skip
    offers = [Offer(profile, nodes=1, up=0) for profile in profiles.values()]
    plan = make_plan([demand], {demand.key: offers}, _POLICY)
    return [grant for grant in plan.grants[demand.key].values() if grant.nodes]


def _shares(images: int, grants: Sequence[Grant]) -> dict[str, int]:
    """All images, shared out by speed; what rounding leaves goes to the first."""
    rate = sum(grant.performance.images_per_s * grant.nodes for grant in grants)
    shares = {
        grant.hardware: int(images * grant.performance.images_per_s * grant.nodes / rate)
        for grant in grants
    }
    shares[grants[0].hardware] += images - sum(shares.values())
    return shares


def _energy(
    grants: Sequence[Grant], shares: dict[str, int], profiles: dict[str, Profile]
) -> tuple[float, float, float]:
    """(expected, least, most) joules, of the images and of loading."""
    totals = [0.0, 0.0, 0.0]
    for grant in grants:
        each, low, high = _per_image(grant.performance)
        load_j = profiles[grant.hardware].standby.load_j * grant.nodes
        for at, per_image in enumerate((each, low, high)):
            totals[at] += shares[grant.hardware] * per_image + load_j * per_image / each
    return totals[0], totals[1], totals[2]


def _per_image(performance: Performance) -> tuple[float, float, float]:
    each = performance.energy_per_image_j
    if performance.quality != "estimated":
        return each, each * (1 - MEASURED_SPREAD), each * (1 + MEASURED_SPREAD)
    low, high = performance.low_j, performance.high_j
    return (
        each,
        min(each, each * GUESS_LOW if low is None else low),
        max(each, each * GUESS_HIGH if high is None else high),
    )


def _cost(grants: Sequence[Grant], profiles: dict[str, Profile], seconds: float) -> float | None:
    """In the profiles' currency; None where a price is not set."""
    prices = [profiles[grant.hardware].standby.price_per_h * grant.nodes for grant in grants]
    return sum(prices) * seconds / 3600 if all(prices) else None


def _carbon(
    grants: Sequence[Grant], shares: dict[str, int], profiles: dict[str, Profile]
) -> float | None:
    """Grams CO2e; None where the electricity's carbon is not set."""
    total = 0.0
    for grant in grants:
        standby = profiles[grant.hardware].standby
        if not standby.carbon_g_per_kwh:
            return None
        energy_j = shares[grant.hardware] * grant.performance.energy_per_image_j + standby.load_j
        total += energy_j * standby.carbon_g_per_kwh / J_PER_KWH
    return total


def _basis(grant: Grant, record: ProfileRecord, encoding: str) -> QuoteBasis:
    performance = grant.performance
    return QuoteBasis(
        hardware=grant.hardware,
        images_per_s=performance.images_per_s,
        energy_per_image_j=performance.energy_per_image_j,
        quality=performance.quality,
        samples=performance.samples,
        measured_at=_measured_at(record, performance, encoding),
    )


def _measured_at(record: ProfileRecord, performance: Performance, encoding: str) -> datetime | None:
    """Of the whole path in this encoding, or else of the device."""
    paths = [p for p in record.pipelines if p.key == encoding]
    times = (
        p.measured_at for p in (*paths, *record.curve) if p.performance().point == performance.point
    )
    return next(times, None)


def _queue_seconds(
    queue: Queue, known: Sequence[ProfileRecord]
) -> tuple[float | None, tuple[str, ...]]:
    """How long the jobs before take, one after the other, and what is not known of it."""
    if queue.works is None:
        return None, ("too many jobs go before this one for their time to be added up",)
    kinds = {(work.model, work.encoding) for work in queue.works}
    speeds = {kind: _speed(known, *kind) for kind in kinds}
    total_s = 0.0
    for work in queue.works:
        speed = speeds[work.model, work.encoding]
        if speed is None:
            return None, ("of a job that goes before, no hardware is measured",)
        total_s += work.images / speed
    return total_s, ()


def _speed(known: Iterable[ProfileRecord], model: str, encoding: str) -> float | None:
    """Images/s of all hardware that is known with the model, one of each."""
    curves = [_believed(record, encoding).curve for record in known if record.model == model]
    return sum(max(p.images_per_s for p in curve) for curve in curves) if curves else None


def _unknown(queue_s: float | None, notes: tuple[str, ...]) -> Quote:
    missing: EnergyQuality = "missing"
    return Quote(
        energy_j=None,
        energy_low_j=None,
        energy_high_j=None,
        quality=missing,
        seconds=None,
        queue_seconds=queue_s,
        images_per_hardware={},
        cost=None,
        carbon_g=None,
        basis=(),
        notes=notes,
    )
