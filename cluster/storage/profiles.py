"""Profiles of hardware, kept in the store and shared by every fleet that uses it.

One object for each hardware class and model; the last writer wins. A concurrent write was measured
on the same hardware, so losing it does no harm. A measured value is never replaced by an estimate.
"""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, NonNegativeInt, PositiveInt

from cluster.errors import Fatal, NotFound
from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost
from cluster.storage.commit import parse_record
from cluster.storage.layout import PROFILES, profile_key
from cluster.storage.object_store import ObjectStore
from cluster.types import SCHEMA_VERSION, EnergyQuality, Record

logger = logging.getLogger(__name__)
_THREADS = 8
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PointRecord(Record):
    """Performance at one operating point. measured_at: None if it was never measured.

    low_j, high_j: bounds on the joules of an image where they are an estimate.
    """

    batch_size: PositiveInt
    power_cap_w: Positive | None = None
    images_per_s: Positive
    power_w: Positive
    quality: EnergyQuality
    low_j: NonNegative | None = None
    high_j: NonNegative | None = None
    samples: NonNegativeInt
    measured_at: AwareDatetime | None = None

    def performance(self) -> Performance:
        return Performance(
            OperatingPoint(self.batch_size, self.power_cap_w),
            self.images_per_s,
            self.power_w,
            self.quality,
            self.low_j,
            self.high_j,
            self.samples,
        )

    @staticmethod
    def of(performance: Performance, measured_at: datetime) -> PointRecord:
        return PointRecord(
            batch_size=performance.point.batch_size,
            power_cap_w=performance.point.power_cap_w,
            images_per_s=performance.images_per_s,
            power_w=performance.power_w,
            quality=performance.quality,
            low_j=performance.low_j,
            high_j=performance.high_j,
            samples=performance.samples,
            measured_at=measured_at if performance.samples else None,
        )


class ProfileRecord(Record):
    """``fleet/profiles/<hardware>/<model>.json``: one kind of hardware with one model."""

    schema_version: Literal[1] = SCHEMA_VERSION
    hardware: str = Field(min_length=1)
    model: str = Field(min_length=1)
    idle_w: NonNegative
    load_s: NonNegative
    load_j: NonNegative
    price_per_h: NonNegative = 0.0
    carbon_g_per_kwh: NonNegative = 0.0
    curve: tuple[PointRecord, ...]

    def profile(self) -> Profile:
        standby = StandbyCost(
            self.idle_w, self.load_s, self.load_j, self.price_per_h, self.carbon_g_per_kwh
        )
        curve = tuple(point.performance() for point in self.curve)
        return Profile(self.hardware, self.model, standby, curve)


def save_profile(store: ObjectStore, profile: Profile, measured_at: datetime) -> None:
    """Save the profile for all fleets. measured_at: of the points that were measured.

    A measured point in the store stays if the profile has no newer measurement.
    Raises what the store raises.
    """
    key = profile_key(profile.hardware, profile.model)
    kept = {point.performance().point: point for point in _standing_curve(store, key)}
    standby = profile.standby
    record = ProfileRecord(
        hardware=profile.hardware,
        model=profile.model,
        idle_w=standby.idle_w,
        load_s=standby.load_s,
        load_j=standby.load_j,
        price_per_h=standby.price_per_h,
        carbon_g_per_kwh=standby.carbon_g_per_kwh,
        curve=tuple(_newer(kept.get(p.point), p, measured_at) for p in profile.curve),
    )
    store.put(key, record.model_dump_json(indent=2).encode())


def load_profiles(store: ObjectStore) -> list[Profile]:
    """The profiles in the store. Damaged records are logged and skipped."""
    return [record.profile() for record in load_profile_records(store)]


def load_profile_records(store: ObjectStore, model: str | None = None) -> list[ProfileRecord]:
    """The same with when each point was measured, by hardware and model. model: of this one."""
    keys = [info.key for info in store.list(PROFILES)]
    if model is not None:
        keys = [key for key in keys if key.endswith(profile_key("", model).removeprefix(PROFILES))]
    with ThreadPoolExecutor(_THREADS) as pool:
        return [record for record in pool.map(lambda key: _read(store, key), keys) if record]


def rates_of(store: ObjectStore, model: str) -> list[float]:
    """The most images/s of each hardware class that was measured with the model (its key)."""
    curves = [record.curve for record in load_profile_records(store, model)]
    measured = [[point.images_per_s for point in curve if point.samples] for curve in curves]
    return [max(rates) for rates in measured if rates]


def _newer(kept: PointRecord | None, own: Performance, measured_at: datetime) -> PointRecord:
    """The point as it is kept from now on."""
    if kept is not None and kept.samples and (not own.samples or kept.performance() == own):
        return kept
    return PointRecord.of(own, measured_at)


def _standing_curve(store: ObjectStore, key: str) -> tuple[PointRecord, ...]:
    record = _read(store, key)
    return record.curve if record else ()


def _read(store: ObjectStore, key: str) -> ProfileRecord | None:
    """The record at the key; None if it does not exist or is damaged."""
    with suppress(NotFound):
        try:
            record = parse_record(ProfileRecord, key, store.get(key))
        except Fatal as error:
            logger.warning("a profile is left out: %s", error)
            return None
        if profile_key(record.hardware, record.model) == key:
            return record
        logger.warning(
            "a profile is left out: %s: it speaks of %s with %s", key, record.hardware, record.model
        )
    return None
