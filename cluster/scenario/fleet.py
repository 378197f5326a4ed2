"""Fleets as data: hardware, its performance, and the source of each figure.

Watts in a file are what a meter at the device shows. Profiles are marginal: they count what is
above the draw of the parked device, which no decision changes; whole devices draw ``parked_w``
more all the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from cluster.documents import read_bundled
from cluster.scheduler.profiles import Profile
from cluster.scheduler.request import OperatingPoint, Performance, StandbyCost
from cluster.types import Record

BUNDLED = Path(__file__).parent / "fleets"


class Source(Record):
    """The source of a figure. ``assumed`` in its text: it was not measured."""

    text: str = Field(min_length=1)
    year: int = Field(ge=1990, le=2100)


class Point(Record):
    """An operating point. speed: share of the hardware's full rate; power_w: at the device."""

    batch_size: PositiveInt
    power_cap_w: PositiveFloat | None = None
    speed: float = Field(gt=0, le=1)
    power_w: PositiveFloat
    source: Source


class Hardware(Record):
    """One kind of device, of which the fleet has ``count``, each in a node of its own.

    images_per_s: full rate by model; or peak_tflops and utilisation, from which it follows with
    the model's GFLOP per image. idle_w: with a model, without work. parked_w: without a model.
    load_w: mean power during the load_s that loading a model takes; park_s: time to unload it.
    """

    name: str = Field(min_length=1)
    count: PositiveInt
    images_per_s: dict[str, PositiveFloat] = Field(default_factory=dict)
    peak_tflops: PositiveFloat | None = None
    utilisation: float | None = Field(default=None, gt=0, le=1)
    points: tuple[Point, ...] = Field(min_length=1)
    idle_w: NonNegativeFloat
    parked_w: NonNegativeFloat
    load_s: NonNegativeFloat
    load_w: NonNegativeFloat
    park_s: NonNegativeFloat = 1.0
    price_per_h: NonNegativeFloat = 0.0
    carbon_g_per_kwh: NonNegativeFloat = 0.0
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _consistent(self) -> Hardware:
        if not self.images_per_s and (self.peak_tflops is None or self.utilisation is None):
            raise ValueError("give images_per_s by model, or both peak_tflops and utilisation")
        lowest_w = min(point.power_w for point in self.points)
        if not self.parked_w <= self.idle_w <= lowest_w or self.load_w < self.parked_w:
            raise ValueError(
                "watts must rise from parked_w over idle_w to every point's power_w, "
                "and load_w may not be below parked_w"
            )
        given = {
            name for name in ("images_per_s", "peak_tflops", "utilisation") if getattr(self, name)
        }
        unsourced = sorted((given | {"idle_w", "parked_w", "load_s"}) - self.sources.keys())
        if unsourced:
            raise ValueError(f"sources lacks {', '.join(unsourced)}; say where they are from")
        return self

    def rate(self, model: str, gflop: float | None) -> float | None:
        """Images per second at full rate; None if this hardware cannot run the model."""
        if model in self.images_per_s:
            return self.images_per_s[model]
        if gflop is None or self.peak_tflops is None or self.utilisation is None:
            return None
        return 1e3 * self.peak_tflops * self.utilisation / gflop

    def profile(self, model: str, rate: float) -> Profile:
        """The profile of this hardware with the model; power above that of the parked device."""
        return Profile(
            self.name,
            model,
            StandbyCost(
                idle_w=self.idle_w - self.parked_w,
                load_s=self.load_s,
                load_j=(self.load_w - self.parked_w) * self.load_s,
                price_per_h=self.price_per_h,
                carbon_g_per_kwh=self.carbon_g_per_kwh,
            ),
            tuple(
                Performance(
                    OperatingPoint(point.batch_size, point.power_cap_w),
                    rate * point.speed,
                    point.power_w - self.parked_w,
                )
                for point in self.points
            ),
        )


class FleetSpec(Record):
    """A fleet. gflop_per_image: of each model, for hardware whose rate follows from its FLOP/s."""

    name: str = Field(min_length=1)
    gflop_per_image: dict[str, PositiveFloat] = Field(default_factory=dict)
    gflop_source: Source | None = None
    hardware: tuple[Hardware, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> FleetSpec:
        names = [hardware.name for hardware in self.hardware]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"hardware {', '.join(twice)} is there twice; add up their counts")
        if self.gflop_per_image and self.gflop_source is None:
            raise ValueError("gflop_source is missing; say where gflop_per_image is from")
        return self

    @cached_property
    def models(self) -> tuple[str, ...]:
        """Every model that some hardware can run."""
        named = (model for hardware in self.hardware for model in hardware.images_per_s)
        return tuple(dict.fromkeys([*self.gflop_per_image, *named]))

    def profiles(self) -> Iterator[Profile]:
        """The true profile of every hardware with every model that it can run."""
        for hardware in self.hardware:
            for model in self.models:
                rate = hardware.rate(model, self.gflop_per_image.get(model))
                if rate is not None:
                    yield hardware.profile(model, rate)

    def capacity_images_per_s(self, model: str) -> float:
        """Images/s of the whole fleet with one model, each device at its fastest point."""
        by_name = {p.hardware: p for p in self.profiles() if p.model == model}
        return sum(
            hardware.count * max(perf.images_per_s for perf in by_name[hardware.name].curve)
            for hardware in self.hardware
            if hardware.name in by_name
        )

    def scaled(self, factor: int) -> FleetSpec:
        """The same mix of hardware, scaled by this factor."""
        bigger = tuple(
            hardware.model_copy(update={"count": hardware.count * factor})
            for hardware in self.hardware
        )
        return self.model_copy(update={"hardware": bigger, "name": f"{factor} x {self.name}"})


def load_fleet(name: str | Path) -> FleetSpec:
    """A bundled fleet by its name, or the fleet in a YAML file. Raises UserError."""
    return read_bundled(FleetSpec, name, BUNDLED, "fleet", "name: mine")
