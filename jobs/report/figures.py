"""Figures derived from sums: joules per image, shares, carbon, cost. Null stays null.

A figure has bounds where a part of it is an estimate. Where a part of it is missing it is null,
and so is its upper bound; the lower bound is what the rest takes at least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.errors import UserError
from cluster.states import ENERGY_BUCKETS, EnergyBucket
from jobs.report.carbon import Intensity
from jobs.report.sums import NOTHING, UNKNOWN, Part, Parts, total
from jobs.view import View

J_PER_KWH = 3.6e6
_J_PER_WH = 3600.0
_MJ_UG_PER_KWH_G = 1e3 * J_PER_KWH * 1e6

# What an image is charged with. Marginal: what would not have been spent without the work.
BOUNDARIES: dict[str, tuple[EnergyBucket, ...]] = {
    "job": ("job",),
    "marginal": ("job", "overhead", "wasted"),
    "whole_node": ENERGY_BUCKETS,
}


@dataclass(frozen=True)
class Figure:
    """A value, None where unknown. ``low``, ``high``: its bounds, None for a measurement."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def times(self, factor: float | None) -> Figure:
        """None if either is unknown."""
        if factor is None:
            return Figure(None)
        scaled = (None if v is None else v * factor for v in (self.value, self.low, self.high))
        return Figure(*scaled)

    def over(self, divisor: float | None) -> Figure:
        """None if either is unknown, or the divisor 0."""
        if not divisor:
            return Figure(None)
        shares = (None if v is None else v / divisor for v in (self.value, self.low, self.high))
        return Figure(*shares)

    def plus(self, amount: float) -> Figure:
        shifted = (None if v is None else v + amount for v in (self.value, self.low, self.high))
        return Figure(*shifted)

    def named(self, name: str) -> dict[str, float | None]:
        """``{"energy_j": …, "energy_low_j": …, "energy_high_j": …}`` for ``energy{}_j``."""
        values = {"": self.value, "_low": self.low, "_high": self.high}
        return {name.format(bound): value for bound, value in values.items()}


class Bounded(View):
    """Figures with bounds, each as three fields: ``energy_j``, ``energy_low_j``, ``energy_high_j``
    for ``energy{}_j``."""

    def figure(self, name: str) -> Figure:
        """The figure of that name. Raises AttributeError if there is none."""
        return Figure(*(getattr(self, name.format(bound)) for bound in ("", "_low", "_high")))


class Charged(Bounded):
    """What images are charged with, and each of them. None is unknown."""

    energy_j: float | None
    energy_low_j: float | None
    energy_high_j: float | None
    energy_known_j: float | None
    energy_active_j: float | None
    j_per_image: float | None
    j_per_image_low: float | None
    j_per_image_high: float | None
    wh_per_1000_images: float | None
    wh_per_1000_images_low: float | None
    wh_per_1000_images_high: float | None


class Shares(View):
    """How the energy is known; None where there is none."""

    measured: float | None
    estimated: float | None
    missing: float | None


ByBucket = dict[EnergyBucket, float | None]


class Made(View):
    """What the figures are of."""

    images: int


class Figures(Charged, Made):
    """The figures of a report, or of a row of it.

    buckets: joules, of which buckets_known is what is known. boundaries: by ``BOUNDARIES``.
    """

    buckets: ByBucket
    buckets_low: ByBucket
    buckets_high: ByBucket
    buckets_known: ByBucket
    boundaries: dict[str, Charged]
    idle_share: float | None
    wasted_share: float | None
    share: Shares
    it_kwh: float | None
    it_low_kwh: float | None
    it_high_kwh: float | None
    facility_kwh: float | None
    facility_low_kwh: float | None
    facility_high_kwh: float | None
    carbon_g: float | None
    carbon_low_g: float | None
    carbon_high_g: float | None
    sci_g_per_1000_images: float | None
    sci_low_g_per_1000_images: float | None
    sci_high_g_per_1000_images: float | None
    cost: float | None
    cost_low: float | None
    cost_high: float | None

    def bucket(self, bucket: EnergyBucket) -> Figure:
        """The energy of one bucket, joules."""
        return Figure(self.buckets[bucket], self.buckets_low[bucket], self.buckets_high[bucket])

    def known_j(self, bucket: EnergyBucket) -> float:
        """The known energy of one bucket, for a chart."""
        return self.buckets_known[bucket] or 0.0


class Keyed(View):
    """What a row is about; None for what belongs to no job."""

    key: str | None


class Row(Figures, Keyed):
    """A row of ``--by``, or of a panel."""


@dataclass(frozen=True)
class Rates:
    """Parameters that convert energy to carbon and cost.

    pue: facility energy over that of the metered devices; None is unknown.
    price_per_kwh: in any currency. embodied_g: CO2e of making the hardware, as far as it is to be
    charged to the period: the M of SCI.
    Raises UserError for values that cannot be.
    """

    intensity: Intensity | None = None
    pue: float | None = None
    price_per_kwh: float | None = None
    currency: str | None = None
    embodied_g: float | None = None

    def __post_init__(self) -> None:
        if self.pue is not None and not 1 <= self.pue < 10:
            raise UserError(
                f"--pue {self.pue}: a facility takes at least what its computers do; give the "
                "ratio of the two, from 1 to 10, such as 1.2"
            )
        for name, value in (("price", self.price_per_kwh), ("embodied", self.embodied_g)):
            if value is not None and not 0 <= value < float("inf"):
                raise UserError(f"--{name} {value}: give a number of 0 or more")


def energy_j(part: Part) -> Figure:
    """Joules; None if any of it is missing."""
    known = Figure(part.known_mj / 1e3, part.low_mj / 1e3, part.high_mj / 1e3)
    return _whole(part, known, part.missing_rows)


def figures(parts: Parts, rates: Rates, boundary: str = "whole_node") -> Figures:
    """The figures of a report.

    boundary: of ``BOUNDARIES``: what the figures include. Beyond it nothing is known; within it a
    bucket without rows took nothing, unless there are no rows at all.
    """
    within = BOUNDARIES[boundary] if parts else ()
    absent: dict[EnergyBucket, Part] = {
        bucket: NOTHING if bucket in within else UNKNOWN for bucket in ENERGY_BUCKETS
    }
    every = {bucket: parts.get(bucket, absent[bucket]) for bucket in ENERGY_BUCKETS}
    energies = {bucket: energy_j(part) for bucket, part in every.items()}
    images = every["job"].images
    charged = total(every[bucket] for bucket in BOUNDARIES[boundary])
    energy = energy_j(charged)
    facility = energy.times(rates.pue)
    return Figures(
        images=images,
        **_per_image(charged, images),
        buckets={bucket: figure.value for bucket, figure in energies.items()},
        buckets_low={bucket: figure.low for bucket, figure in energies.items()},
        buckets_high={bucket: figure.high for bucket, figure in energies.items()},
        buckets_known={bucket: _known_j(part) for bucket, part in every.items()},
        boundaries={
            name: Charged(**_per_image(total(every[bucket] for bucket in buckets), images))
            for name, buckets in BOUNDARIES.items()
        },
        idle_share=_share_of_known(every, "idle"),
        wasted_share=_share_of_known(every, "wasted"),
        share=_shares(total(parts[bucket] for bucket in within if bucket in parts)),
        **energy.over(J_PER_KWH).named("it{}_kwh"),
        **facility.over(J_PER_KWH).named("facility{}_kwh"),
        **carbon_g(charged, rates).named("carbon{}_g"),
        **_sci(charged, images, rates).named("sci{}_g_per_1000_images"),
        **energy.times(rates.pue or 1.0).over(J_PER_KWH).times(rates.price_per_kwh).named("cost{}"),
    )


def row_of(key: str | None, parts: Parts, rates: Rates, boundary: str) -> Row:
    """The figures of one row of a report; ``key`` is what it is about."""
    return Row(key=key, **dict(figures(parts, rates, boundary)))


def carbon_g(part: Part, rates: Rates) -> Figure:
    """Grams of CO2e at the grid's intensity, of the facility where the PUE is known.

    None if an energy is missing, or the intensity at its time.
    """
    if rates.intensity is None:
        return Figure(None)
    known = Figure(part.carbon, part.carbon_low, part.carbon_high).over(_MJ_UG_PER_KWH_G)
    return _whole(part, known, part.missing_rows + part.uncovered_rows).times(rates.pue or 1.0)


def _per_image(part: Part, images: int) -> dict[str, float | None]:
    """Energy, and that per image: a ratio of sums."""
    energy = energy_j(part)
    each = energy.over(images)
    active_known = part.active_rows == part.rows
    return {
        **energy.named("energy{}_j"),
        "energy_known_j": _known_j(part),
        "energy_active_j": part.active_mj / 1e3 if active_known else None,
        **each.named("j_per_image{}"),
        **each.over(_J_PER_WH / 1000).named("wh_per_1000_images{}"),
    }


def _sci(part: Part, images: int, rates: Rates) -> Figure:
    """Software Carbon Intensity, (E x I + M) / R with R = 1,000 images; M is 0 unless given.

    https://sci.greensoftware.foundation
    """
    grams = carbon_g(part, rates).plus(rates.embodied_g or 0.0)
    return grams.over(images / 1000)


def _known_j(part: Part) -> float | None:
    """The known energy; None if none is known."""
    return None if part.rows and part.rows == part.missing_rows else part.known_mj / 1e3


def _share_of_known(parts: Mapping[EnergyBucket, Part], bucket: EnergyBucket) -> float | None:
    """A bucket's part of all known energy."""
    known = total(parts.values()).known_mj
    return None if _known_j(parts[bucket]) is None or not known else parts[bucket].known_mj / known


def _shares(part: Part) -> Shares:
    """How the energy is known; the three add up to 1.

    missing is of time, because its energy is not known; the rest is divided by energy.
    """
    if not part.rows:
        return Shares(measured=None, estimated=None, missing=None)
    known_rows = part.rows - part.missing_rows
    missing = _ratio(part.missing_ns, part.row_ns, _ratio(part.missing_rows, part.rows, 0.0))
    estimated = _ratio(
        part.estimated_mj, part.known_mj, _ratio(part.estimated_rows, known_rows, 0.0)
    )
    return Shares(
        measured=(1 - missing) * (1 - estimated),
        estimated=(1 - missing) * estimated,
        missing=missing,
    )


def _ratio(part: float, whole: float, otherwise: float) -> float:
    return part / whole if whole else otherwise


def _whole(part: Part, known: Figure, unknown_rows: int) -> Figure:
    """What is to be said of all of the part, of which ``unknown_rows`` are not in ``known``."""
    low = None if part.unbounded_rows else known.low
    if unknown_rows >= part.rows > 0:
        return Figure(None)
    if unknown_rows:
        return Figure(None, low)
    if not part.estimated_rows:
        return Figure(known.value)
    return Figure(known.value, low, None if part.unbounded_rows else known.high)
