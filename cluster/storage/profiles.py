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
from cluster.scheduler.profiles import Pipeline, Profile
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost
from cluster.stage_times import Stage, StageTimes
from cluster.storage.commit import parse_record
from cluster.storage.layout import PROFILES, profile_key
from cluster.storage.object_store import ObjectStore
from cluster.types import (
    SCHEMA_VERSION,
    Compression,
    EnergyQuality,
    ImageEncoding,
    Record,
    encoding_key,
)

logger = logging.getLogger(__name__)
_THREADS = 8
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]


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


class PipelineRecord(PointRecord):
    """Performance of the whole path into a store, with images written in this way.

    compression: of raw images. stage_share, bottleneck: how busy device, encode and upload were
    when they were last measured apart (``un0 calibrate``), and which was busiest.
    """

    encoding: ImageEncoding
    compression: Compression | None = None
    stage_share: dict[Stage, Share] | None = None
    bottleneck: Stage | None = None

    @property
    def key(self) -> str:
        return encoding_key(self.encoding, self.compression)

    def pipeline(self) -> Pipeline:
        return Pipeline(self.key, self.performance(), StageTimes.of(self.stage_share))

    @staticmethod
    def of_pipeline(own: Pipeline, measured_at: datetime) -> PipelineRecord:
        encoding, _, compression = own.encoding.partition("/")
        point = PointRecord.of(own.performance, measured_at)
        return PipelineRecord.model_validate(
            point.model_dump()
            | {
                "encoding": encoding,
                "compression": compression or None,
                "stage_share": own.times.shares,
                "bottleneck": own.times.bottleneck,
            }
        )


class ProfileRecord(Record):
    """``fleet/profiles/<hardware>/<model>.json``: one kind of hardware with one model.

    curve: of the device, or what earlier versions saw of work in any encoding. pipelines: of the
    whole path, by encoding; left out of the JSON where there is none.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    hardware: str = Field(min_length=1)
    model: str = Field(min_length=1)
    idle_w: NonNegative
    load_s: NonNegative
    load_j: NonNegative
    price_per_h: NonNegative = 0.0
    carbon_g_per_kwh: NonNegative = 0.0
    curve: tuple[PointRecord, ...]
    pipelines: tuple[PipelineRecord, ...] = Field(default=(), exclude_if=lambda known: not known)

    def profile(self) -> Profile:
        standby = StandbyCost(
            self.idle_w, self.load_s, self.load_j, self.price_per_h, self.carbon_g_per_kwh
        )
        curve = tuple(point.performance() for point in self.curve)
        pipelines = tuple(known.pipeline() for known in self.pipelines)
        return Profile(self.hardware, self.model, standby, curve, pipelines)


def save_profile(store: ObjectStore, profile: Profile, measured_at: datetime) -> None:
    """Save the profile for all fleets. measured_at: of the points that were measured.

    A measured point in the store stays if the profile has no newer measurement.
    Raises what the store raises.
    """
    key = profile_key(profile.hardware, profile.model)
    standing = _read(store, key)
    kept = {point.performance().point: point for point in standing.curve} if standing else {}
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
        pipelines=_newer_pipelines(standing.pipelines if standing else (), profile, measured_at),
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


def rates_of(store: ObjectStore, model: str, encoding: str) -> list[float]:
    """The most images/s of each hardware class that was measured with the model (its key): of the
    whole path in this encoding, where that was, else of what is known of it."""
    found = []
    for record in load_profile_records(store, model):
        whole = [known.images_per_s for known in record.pipelines if known.key == encoding]
        rates = whole or [point.images_per_s for point in record.curve if point.samples]
        found += [max(rates)] if rates else []
    return found


def _newer(kept: PointRecord | None, own: Performance, measured_at: datetime) -> PointRecord:
    """The point as it is kept from now on."""
    if kept is not None and kept.samples and (not own.samples or kept.performance() == own):
        return kept
    return PointRecord.of(own, measured_at)


def _newer_pipelines(
    standing: tuple[PipelineRecord, ...], profile: Profile, measured_at: datetime
) -> tuple[PipelineRecord, ...]:
    """Those of the profile, and of the store's those that it has no newer measurement of."""
    found = {(known.key, known.performance().point): known for known in standing}
    for own in profile.pipelines:
        place = own.encoding, own.performance.point
        kept, new = found.get(place), PipelineRecord.of_pipeline(own, measured_at)
        if kept is None or kept.performance() != own.performance:
            if kept is not None and new.stage_share is None:
                shares = {"stage_share": kept.stage_share, "bottleneck": kept.bottleneck}
                new = new.model_copy(update=shares)
            found[place] = new
    return tuple(found.values())


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
